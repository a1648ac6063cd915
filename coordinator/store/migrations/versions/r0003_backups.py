"""When the store was backed up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "backup",
        sa.Column("taken_at", sa.DateTime(), nullable=False),
        sa.Column(
            "ledger_size", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.PrimaryKeyConstraint("taken_at"),
    )
