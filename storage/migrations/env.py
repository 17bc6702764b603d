"""Alembic's entry point: runs the revisions on the connection it was handed."""

from __future__ import annotations

from alembic import context

from storage.migrations import VERSION_TABLE
from storage.models import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
