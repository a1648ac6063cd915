"""The schema of the first release, with the table that said so."""

from __future__ import annotations

from functools import partial
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_STRING = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _column(type_: sa.types.TypeEngine[Any], name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=nullable, autoincrement=False)


_text = partial(_column, _STRING)
_number = partial(_column, _INTEGER)
_time = partial(_column, sa.DateTime())
_data = partial(_column, sa.LargeBinary())
_flag = partial(_column, sa.Boolean())


def upgrade() -> None:
    op.create_table(
        "association",
        _number("id"),
        _number("ledger_index"),
        _number("benchmark_id"),
        _text("dataset_id"),
        _number("model_id"),
        _text("requester"),
        _number("state"),
        _text("test_digest"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_association_benchmark_id", "association", ["benchmark_id"])
    op.create_index("ix_association_dataset_id", "association", ["dataset_id"])
    op.create_index("ix_association_model_id", "association", ["model_id"])
    op.create_table(
        "association_event",
        _number("association_id"),
        _number("number"),
        _number("ledger_index"),
        _time("at"),
        _text("actor"),
        _text("what"),
        _text("reason"),
        sa.PrimaryKeyConstraint("association_id", "number"),
    )
    op.create_table(
        "benchmark",
        _number("id"),
        _number("ledger_index"),
        _text("envelope_digest"),
        _text("owner"),
        _text("name"),
        _text("preparation_digest"),
        _number("reference_model_id"),
        _text("evaluator_digest"),
        _number("votes_needed"),
        _flag("allow_partial_results"),
        _data("policy"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_index("ix_benchmark_owner", "benchmark", ["owner"])
    op.create_table(
        "committee_member",
        _number("benchmark_id"),
        _text("name"),
        sa.PrimaryKeyConstraint("benchmark_id", "name"),
    )
    op.create_index("ix_committee_member_name", "committee_member", ["name"])
    op.create_table(
        "container",
        _number("id"),
        _number("ledger_index"),
        _text("owner"),
        _text("name"),
        _number("role"),
        _text("digest"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index("ix_container_owner", "container", ["owner"])
    op.create_table(
        "dataset",
        _text("id"),
        _number("ledger_index"),
        _text("site"),
        _text("preparation_digest"),
        _text("raw_fingerprint"),
        _number("state"),
        _text("prepared_fingerprint", nullable=True),
        _number("operational_index", nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("prepared_fingerprint"),
    )
    op.create_index("ix_dataset_ledger_index", "dataset", ["ledger_index"])
    op.create_index("ix_dataset_site", "dataset", ["site"])
    op.create_table(
        "execution",
        _number("id"),
        _number("ledger_index"),
        _number("line"),
        _text("requester"),
        _number("benchmark_id"),
        _text("dataset_id"),
        _text("site"),
        _number("model_id"),
        _text("model_digest"),
        _number("purpose"),
        _number("state"),
        _text("reason"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_execution_benchmark_id", "execution", ["benchmark_id"])
    op.create_index("ix_execution_site", "execution", ["site"])
    op.create_table(
        "join_token",
        _text("token_id"),
        _text("name"),
        _number("role"),
        _time("expires_at"),
        _number("issued_index"),
        _number("used_index", nullable=True),
        _number("revoked_index", nullable=True),
        sa.PrimaryKeyConstraint("token_id"),
    )
    op.create_table(
        "ledger_entry",
        _number("ledger_index"),
        _text("envelope_digest"),
        _text("kind"),
        _text("signer"),
        _number("enrolment_index"),
        _text("thing_id"),
        _time("accepted_at"),
        _data("envelope"),
        sa.PrimaryKeyConstraint("ledger_index"),
        sa.UniqueConstraint("envelope_digest"),
    )
    op.create_table(
        "ledger_node",
        _number("level"),
        _number("number"),
        _data("hash"),
        sa.PrimaryKeyConstraint("level", "number"),
    )
    op.create_table(
        "model",
        _number("id"),
        _number("ledger_index"),
        _text("owner"),
        _text("name"),
        _number("container_id"),
        _text("digest"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index("ix_model_owner", "model", ["owner"])
    op.create_table(
        "news",
        _text("site"),
        _number("ledger_index"),
        sa.PrimaryKeyConstraint("site", "ledger_index"),
    )
    op.create_table(
        "participant",
        _text("name"),
        _number("role"),
        _data("signing_key"),
        _text("tls_key_digest"),
        _number("enrolled_index"),
        _number("revoked_index", nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "result",
        _number("id"),
        _number("ledger_index"),
        _text("name"),
        _text("site"),
        _number("benchmark_id"),
        _text("dataset_id"),
        _number("model_id"),
        _number("purpose"),
        _text("envelope_digest"),
        _text("superseded_by"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("envelope_digest"),
    )
    op.create_index("ix_result_name", "result", ["name"])
    op.create_index("ix_result_site", "result", ["site"])
    op.create_index("ix_result_what", "result", ["benchmark_id", "dataset_id", "model_id"])
    op.create_table(
        "schema_version",
        _number("version"),
        sa.PrimaryKeyConstraint("version"),
    )
