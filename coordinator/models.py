"""The tables. All but the ledger's two are a projection of the ledger: nothing in them is news.

They mean the same on SQLite and PostgreSQL: texts compare by their bytes, numbers have 64 bits,
times are UTC. A change here needs a revision in `store/migrations` (a test compares the two).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    event,
)
from sqlalchemy.types import TypeDecorator
from sqlmodel import AutoString, Column, DateTime, Field, SQLModel

from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb

TEXT = String().with_variant(String(collation="C"), "postgresql")
NUMBER = BigInteger().with_variant(Integer(), "sqlite")


@event.listens_for(Column, "before_parent_attach")
def _same_on_every_database(column: Column[Any], table: Table) -> None:
    """What SQLModel makes of `str` and `int` differs between databases; these do not."""
    if table.metadata is not SQLModel.metadata:
        return
    if isinstance(column.type, AutoString):
        column.type = TEXT
    elif type(column.type) is Integer:
        column.type = NUMBER


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC times on every store: SQLite forgets the zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: object) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: object) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


class LedgerEntry(SQLModel, table=True):
    """A leaf of the tree: the envelope's bytes as they came. `enrolment_index` is the entry
    that introduced its signer's key, `thing_id` names what it made."""

    __tablename__ = "ledger_entry"
    ledger_index: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    envelope_digest: str = Field(unique=True)
    kind: str
    signer: str
    enrolment_index: int
    thing_id: str
    accepted_at: datetime = Field(sa_type=UtcDateTime)
    envelope: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class LedgerNode(SQLModel, table=True):
    """Hash of a complete subtree of 2**level leaves."""

    __tablename__ = "ledger_node"
    level: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class JoinToken(SQLModel, table=True):
    __tablename__ = "join_token"
    token_id: str = Field(primary_key=True)
    name: str
    role: int
    expires_at: datetime = Field(sa_type=UtcDateTime)
    issued_index: int
    used_index: int | None = None
    revoked_index: int | None = None


class Participant(SQLModel, table=True):
    __tablename__ = "participant"
    name: str = Field(primary_key=True)
    role: int
    signing_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    tls_key_digest: str
    enrolled_index: int
    revoked_index: int | None = None


class Container(SQLModel, table=True):
    __tablename__ = "container"
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    ledger_index: int
    owner: str = Field(index=True)
    name: str
    role: int
    digest: str = Field(unique=True)


class Benchmark(SQLModel, table=True):
    """`policy` is a serialised BenchmarkPolicy, as changed last."""

    __tablename__ = "benchmark"
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    ledger_index: int
    envelope_digest: str
    owner: str = Field(index=True)
    name: str = Field(unique=True)
    preparation_digest: str
    reference_model_id: int
    evaluator_digest: str
    votes_needed: int
    allow_partial_results: bool
    policy: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class CommitteeMember(SQLModel, table=True):
    __tablename__ = "committee_member"
    benchmark_id: int = Field(primary_key=True)
    name: str = Field(primary_key=True, index=True)


class Model(SQLModel, table=True):
    __tablename__ = "model"
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    ledger_index: int
    owner: str = Field(index=True)
    name: str
    container_id: int
    digest: str = Field(unique=True)


class Dataset(SQLModel, table=True):
    __tablename__ = "dataset"
    id: str = Field(primary_key=True)
    ledger_index: int = Field(index=True)
    site: str = Field(index=True)
    preparation_digest: str
    raw_fingerprint: str
    state: int = reg.DATASET_STATE_REGISTERED
    prepared_fingerprint: str | None = Field(default=None, unique=True)
    operational_index: int | None = None


class Association(SQLModel, table=True):
    __tablename__ = "association"
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    ledger_index: int
    benchmark_id: int = Field(index=True)
    dataset_id: str = Field(default="", index=True)
    model_id: int = Field(default=0, index=True)
    requester: str
    state: int = reg.ASSOCIATION_STATE_REQUESTED
    test_digest: str


class AssociationEvent(SQLModel, table=True):
    __tablename__ = "association_event"
    association_id: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    ledger_index: int
    at: datetime = Field(sa_type=UtcDateTime)
    actor: str
    what: str
    reason: str = ""


class Execution(SQLModel, table=True):
    """An order: line `line` of the ExecutionRequested at `ledger_index`."""

    __tablename__ = "execution"
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    ledger_index: int
    line: int
    requester: str
    benchmark_id: int = Field(index=True)
    dataset_id: str
    site: str = Field(index=True)
    model_id: int
    model_digest: str
    purpose: int
    state: int = pb.EXECUTION_STATE_ORDERED
    reason: str = ""
    updated_at: datetime = Field(sa_type=UtcDateTime)


class Result(SQLModel, table=True):
    __tablename__ = "result"
    __table_args__ = (
        UniqueConstraint("envelope_digest"),
        Index("ix_result_what", "benchmark_id", "dataset_id", "model_id"),
    )
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    ledger_index: int
    name: str = Field(index=True)
    site: str = Field(index=True)
    benchmark_id: int
    dataset_id: str
    model_id: int
    purpose: int
    envelope_digest: str
    superseded_by: str = ""


class News(SQLModel, table=True):
    """Which entries concern which site: what an agent hears from its cursor on."""

    __tablename__ = "news"
    site: str = Field(primary_key=True)
    ledger_index: int = Field(primary_key=True, index=True)
