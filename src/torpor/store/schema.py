"""The tables of the metadata database, as they are after the newest migration."""

from sqlalchemy import Column, ForeignKey, Integer, MetaData, PrimaryKeyConstraint, String, Table, Text

REVISION = "0003"
"""The migration these tables correspond to."""

metadata = MetaData()

functions = Table(
    "functions",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("reserved_concurrency", Integer, nullable=True),
    Column("tags", Text, nullable=False),
    Column("aliases", Text, nullable=False, server_default="{}"),
    Column("next_version", Integer, nullable=False, server_default="1"),
)

versions = Table(
    "versions",
    metadata,
    Column("function", String(255), ForeignKey("functions.name", ondelete="CASCADE"), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("document", Text, nullable=False),
)

layers = Table(
    "layers",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("document", Text, nullable=False),
)

resources = Table(
    "resources",
    metadata,
    Column("kind", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("document", Text, nullable=False),
)

stored_revision = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""The migration tool's own, as it makes it; known here so that the tool need not be imported when nothing is to be
migrated."""
