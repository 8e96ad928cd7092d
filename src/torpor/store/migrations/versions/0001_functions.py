"""Functions and their versions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "functions",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("reserved_concurrency", sa.Integer, nullable=True),
        sa.Column("tags", sa.Text, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("function", sa.String(255), sa.ForeignKey("functions.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("versions")
    op.drop_table("functions")
