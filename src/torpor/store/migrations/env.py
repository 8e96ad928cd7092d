"""Run by the migration tool: hands it the connection the store has opened."""

from alembic import context

from torpor.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
# No transaction is begun here: the one the connection is in covers the check, every step and the new revision.
context.run_migrations()
