"""The table that named the schema gives way to Alembic's own; news are found by their index too."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_table("schema_version")
    op.create_index("ix_news_ledger_index", "news", ["ledger_index"])
