"""Brings a database to the newest revision, inside the caller's transaction."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def settings() -> Config:
    """Where the steps of this package lie."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def upgrade(connection: Connection) -> None:
    """Run every step the database lacks; the caller's transaction makes it all or nothing.

    Raises alembic.util.CommandError for a database of an unknown revision.
    """
    config = settings()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
