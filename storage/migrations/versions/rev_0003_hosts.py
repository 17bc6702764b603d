"""Which host a run belongs to, and when a process took it over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("owner_host", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("resumed_at", sa.String(32), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "resumed_at")
    op.drop_column("runs", "owner_host")
