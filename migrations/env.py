"""Alembic's entry. The connection is always given by `batchrun.database.upgrade`, which holds the transaction."""

from alembic import context

from batchrun.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
