"""Runs the steps on the connection, and in the transaction, that `inference.storage.migrating` hands over."""

from __future__ import annotations

from alembic import context

from inference.storage.migrating import VERSION_TABLE
from inference.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
