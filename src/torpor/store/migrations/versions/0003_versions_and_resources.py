"""Aliases and version numbers of functions, and resources of other kinds."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("functions", sa.Column("aliases", sa.Text, nullable=False, server_default="{}"))
    op.add_column("functions", sa.Column("next_version", sa.Integer, nullable=False, server_default="1"))
    op.create_table(
        "resources",
        sa.Column("kind", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("resources")
    op.drop_column("functions", "next_version")
    op.drop_column("functions", "aliases")
