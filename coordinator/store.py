"""Sessions and queries: the only SQL of the coordinator.

`Store` owns the engine; `Reader` is a session with the questions that rules and servicers ask.
SQLite runs in WAL mode with full synchronisation: a commit that was answered survives power loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, event, exc, func, insert, text
from sqlmodel import Session, SQLModel, col, create_engine, select

from coordinator.lifecycle import ENDED_EXECUTIONS, LIVE_ASSOCIATIONS
from coordinator.models import (
    Association,
    AssociationEvent,
    Benchmark,
    CommitteeMember,
    Container,
    Dataset,
    Execution,
    LedgerEntry,
    LedgerNode,
    Model,
    News,
    Participant,
    Result,
    SchemaVersion,
)
from housecall.errors import Kind, Refusal
from housecall.v1 import registry_pb2 as reg

SCHEMA = 1
Row = TypeVar("Row", bound=SQLModel)


def _tune_sqlite(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


class Store:
    """The database at an SQLAlchemy URL, as `sqlite:////var/lib/.../coordinator.db`."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            if self.engine.url.database:
                Path(self.engine.url.database).touch(mode=0o600)
                Path(self.engine.url.database).chmod(0o600)
            event.listen(self.engine, "connect", _tune_sqlite)
        try:
            SQLModel.metadata.create_all(self.engine)
        except exc.DatabaseError as error:
            raise Refusal(
                Kind.UNAVAILABLE, "STORE_UNREADABLE", f"cannot open the store: {error.orig}"
            ) from error
        self._check_version()

    def _check_version(self) -> None:
        with Session(self.engine) as session:
            found = session.exec(select(func.max(SchemaVersion.version))).one()
            if found is None:
                session.add(SchemaVersion(version=SCHEMA))
                session.commit()
            elif found != SCHEMA:
                raise Refusal(
                    Kind.NOT_READY,
                    "STORE_VERSION",
                    f"the store has schema {found}, this program expects {SCHEMA}: start the "
                    "version of housecall-coordinator that wrote it",
                )

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        with Session(self.engine) as session:
            yield Reader(session)

    def writer(self) -> Reader:
        """The one writer's session: it sees its own rows before they are committed."""
        return Reader(Session(self.engine, expire_on_commit=False))

    def close(self) -> None:
        self.engine.dispose()


class Reader:
    """Typed questions over one session, in the words of the domain."""

    def __init__(self, session: Session) -> None:
        self.session = session

    # rows by key

    def get(self, table: type[Row], key: Any, what: str) -> Row:
        """The row, or a NOT_FOUND refusal that names `what`."""
        row = self.session.get(table, key)
        if row is None:
            code = table.__name__.upper() + "_NOT_FOUND"
            raise Refusal(
                Kind.NOT_FOUND, code, f"there is no {what} {key}, or it is not yours to see"
            )
        return row

    def find(self, table: type[Row], key: Any) -> Row | None:
        return self.session.get(table, key)

    def participant(self, name: str) -> Participant:
        return self.get(Participant, name, "participant")

    def container(self, number: int) -> Container:
        return self.get(Container, number, "container")

    def benchmark(self, number: int) -> Benchmark:
        return self.get(Benchmark, number, "benchmark")

    def model(self, number: int) -> Model:
        return self.get(Model, number, "model")

    def dataset(self, dataset_id: str) -> Dataset:
        return self.get(Dataset, dataset_id, "dataset")

    def association(self, number: int) -> Association:
        return self.get(Association, number, "association")

    def execution(self, number: int) -> Execution:
        return self.get(Execution, number, "execution")

    # the ledger

    def tree_size(self) -> int:
        newest = self.session.exec(select(func.max(LedgerEntry.ledger_index))).one()
        return 0 if newest is None else newest + 1

    def entry(self, index: int) -> LedgerEntry:
        return self.get(LedgerEntry, index, "ledger entry")

    def entry_by_digest(self, digest: str) -> LedgerEntry | None:
        query = select(LedgerEntry).where(LedgerEntry.envelope_digest == digest)
        return self.session.exec(query).first()

    def entries(self, start: int, count: int) -> Sequence[LedgerEntry]:
        query = select(LedgerEntry).where(LedgerEntry.ledger_index >= start)
        return self.session.exec(query.order_by(col(LedgerEntry.ledger_index)).limit(count)).all()

    def node(self, level: int, number: int) -> bytes:
        query = select(LedgerNode.hash).where(
            LedgerNode.level == level, LedgerNode.number == number
        )
        return self.session.exec(query).one()

    # questions

    def committee(self, benchmark_id: int) -> set[str]:
        query = select(CommitteeMember.name).where(CommitteeMember.benchmark_id == benchmark_id)
        return set(self.session.exec(query).all())

    def committees_of(self, name: str) -> set[int]:
        query = select(CommitteeMember.benchmark_id).where(CommitteeMember.name == name)
        return set(self.session.exec(query).all())

    def live_association(
        self, benchmark_id: int, dataset_id: str = "", model_id: int = 0
    ) -> Association | None:
        query = select(Association).where(
            Association.benchmark_id == benchmark_id,
            Association.dataset_id == dataset_id,
            Association.model_id == model_id,
            col(Association.state).in_(LIVE_ASSOCIATIONS),
        )
        return self.session.exec(query).first()

    def is_approved(self, benchmark_id: int, dataset_id: str = "", model_id: int = 0) -> bool:
        association = self.live_association(benchmark_id, dataset_id, model_id)
        return association is not None and association.state == reg.ASSOCIATION_STATE_APPROVED

    def approved_models(self, benchmark: Benchmark) -> list[Model]:
        """The reference model first, then those associated, in the order of their approval."""
        query = (
            select(Model)
            .join(Association, col(Association.model_id) == col(Model.id))
            .where(
                Association.benchmark_id == benchmark.id,
                Association.state == reg.ASSOCIATION_STATE_APPROVED,
            )
            .order_by(col(Association.id))
        )
        others = [m for m in self.session.exec(query) if m.id != benchmark.reference_model_id]
        return [self.model(benchmark.reference_model_id), *others]

    def events(self, association_id: int) -> Sequence[AssociationEvent]:
        query = select(AssociationEvent).where(AssociationEvent.association_id == association_id)
        return self.session.exec(query.order_by(col(AssociationEvent.number))).all()

    def standing_result(
        self, benchmark_id: int, dataset_id: str, model_id: int, purpose: int
    ) -> Result | None:
        query = select(Result).where(
            Result.benchmark_id == benchmark_id,
            Result.dataset_id == dataset_id,
            Result.model_id == model_id,
            Result.purpose == purpose,
            Result.superseded_by == "",
        )
        return self.session.exec(query).first()

    def result_by_digest(self, envelope_digest: str) -> Result | None:
        query = select(Result).where(Result.envelope_digest == envelope_digest)
        return self.session.exec(query).first()

    def result_by_name(self, name: str) -> Result | None:
        query = select(Result).where(Result.name == name, Result.superseded_by == "")
        return self.session.exec(query.order_by(col(Result.purpose), col(Result.id))).first()

    def open_executions(self, site: str) -> Sequence[Execution]:
        query = select(Execution).where(
            Execution.site == site, col(Execution.state).not_in(ENDED_EXECUTIONS)
        )
        return self.session.exec(query.order_by(col(Execution.id))).all()

    def open_execution(self, benchmark_id: int, dataset_id: str, digest: str) -> Execution | None:
        query = select(Execution).where(
            Execution.benchmark_id == benchmark_id,
            Execution.dataset_id == dataset_id,
            Execution.model_digest == digest,
            col(Execution.state).not_in(ENDED_EXECUTIONS),
        )
        return self.session.exec(query).first()

    def benchmark_named(self, name: str) -> Benchmark | None:
        return self.session.exec(select(Benchmark).where(Benchmark.name == name)).first()

    def container_of(self, digest: str) -> Container | None:
        return self.session.exec(select(Container).where(Container.digest == digest)).first()

    def model_of(self, digest: str) -> Model | None:
        return self.session.exec(select(Model).where(Model.digest == digest)).first()

    def dataset_of(self, prepared_fingerprint: str) -> Dataset | None:
        query = select(Dataset).where(Dataset.prepared_fingerprint == prepared_fingerprint)
        return self.session.exec(query).first()

    def news(self, site: str, cursor: int) -> Sequence[LedgerEntry]:
        """Entries from `cursor` on that concern a site, oldest first."""
        query = (
            select(LedgerEntry)
            .join(News, col(News.ledger_index) == col(LedgerEntry.ledger_index))
            .where(News.site == site, col(News.ledger_index) >= cursor)
            .order_by(col(LedgerEntry.ledger_index))
        )
        return self.session.exec(query).all()

    def page(
        self, table: type[Row], order: Any, after: Any, size: int, **where: Any
    ) -> Sequence[Row]:
        """Up to `size` rows past the key `after`, where the columns equal what is given."""
        query = select(table).filter_by(**where)
        if after is not None:
            query = query.where(order > after)
        return self.session.exec(query.order_by(order).limit(size)).all()

    # writing

    def next_id(self, table: type[Any]) -> int:
        return (self.session.exec(select(func.max(table.id))).one() or 0) + 1

    def add(self, *rows: SQLModel) -> None:
        """Rows that the next question of this session already sees."""
        self.session.add_all(rows)
        self.session.flush()

    def insert(self, table: type[SQLModel], rows: list[dict[str, Any]]) -> None:
        """Many rows at once, past the ORM: the hot path."""
        if rows:
            self.session.execute(insert(table), rows)

    def commit(self) -> None:
        self.session.commit()

    def rollback(self) -> None:
        self.session.rollback()

    def ping(self) -> None:
        self.session.execute(text("SELECT 1"))
