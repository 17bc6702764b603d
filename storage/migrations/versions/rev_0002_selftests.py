"""What self-tests found of a machine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "selftests",
        sa.Column("id", sa.Integer(), primary_key=True, nullable=False),
        sa.Column("environment_fingerprint", sa.Text(), nullable=False),
        sa.Column("measured_at", sa.String(32), nullable=False),
        sa.Column("result_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_fingerprint"],
            ["environments.fingerprint"],
            name="fk_selftests_environment_fingerprint",
        ),
    )
    op.create_index("ix_selftests_environment_fingerprint", "selftests", ["environment_fingerprint"])


def downgrade() -> None:
    op.drop_table("selftests")
