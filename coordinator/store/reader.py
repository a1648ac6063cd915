"""Typed questions over one session, in the words of the domain."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import func
from sqlmodel import Session, SQLModel, col, select

from coordinator.lifecycle import ENDED_EXECUTIONS, LIVE_ASSOCIATIONS
from coordinator.models import (
    Association,
    AssociationEvent,
    Benchmark,
    CommitteeMember,
    Container,
    Dataset,
    Execution,
    JoinToken,
    LedgerEntry,
    LedgerNode,
    Model,
    News,
    Participant,
    Result,
)
from coordinator.store.databases import take_time
from housecall.errors import Kind, Refusal
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb

Row = TypeVar("Row", bound=SQLModel)
MOST_NODES = 2**16
VOTES = ("approve", "reject")


class Reader:
    """A session and what may be asked of it."""

    def __init__(self, session: Session, nodes: dict[tuple[int, int], bytes] | None = None) -> None:
        """`nodes` are those of the tree that were read before, by whomever."""
        self.session = session
        self._nodes = {} if nodes is None else nodes

    def take_time(self) -> None:
        """Lift the store's limits on how long this transaction may last and idle."""
        take_time(self.session.connection())

    # rows by key

    def get(self, table: type[Row], key: Any, what: str) -> Row:
        """The row, or a NOT_FOUND refusal that names `what`."""
        row = self.find(table, key)
        if row is None:
            code = table.__name__.upper() + "_NOT_FOUND"
            raise Refusal(
                Kind.NOT_FOUND, code, f"there is no {what} {key}, or it is not yours to see"
            )
        return row

    def find(self, table: type[Row], key: Any) -> Row | None:
        return self.session.get(table, key)

    @property
    def ask(self) -> Session:
        """The session, fit for a query."""
        return self.session

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

    def enrolments(self, name: str) -> Sequence[int]:
        """The entries that enrolled or renewed it by a join token, oldest first."""
        used = col(JoinToken.used_index)
        query = select(used).where(JoinToken.name == name, used.is_not(None)).order_by(used)
        return [index for index in self.ask.exec(query) if index is not None]

    # the ledger

    def tree_size(self) -> int:
        newest = self.ask.exec(select(func.max(LedgerEntry.ledger_index))).one()
        return 0 if newest is None else newest + 1

    def stored_leaves(self) -> int:
        """How many leaves the stored tree has: as many as there are entries, or some are lost."""
        last = select(func.max(LedgerNode.number)).where(LedgerNode.level == 0)
        newest = self.ask.exec(last).one()
        return 0 if newest is None else newest + 1

    def entry(self, index: int) -> LedgerEntry:
        return self.get(LedgerEntry, index, "ledger entry")

    def entries_by_digest(self, digests: Sequence[str]) -> Sequence[LedgerEntry]:
        query = select(LedgerEntry).where(col(LedgerEntry.envelope_digest).in_(digests))
        return self.ask.exec(query).all()

    def entry_by_digest(self, digest: str) -> LedgerEntry | None:
        query = select(LedgerEntry).where(LedgerEntry.envelope_digest == digest)
        return self.ask.exec(query).first()

    def entries(self, start: int, count: int) -> Sequence[LedgerEntry]:
        query = select(LedgerEntry).where(LedgerEntry.ledger_index >= start)
        return self.ask.exec(query.order_by(col(LedgerEntry.ledger_index)).limit(count)).all()

    def envelopes(self) -> Iterator[bytes]:
        """Every entry's bytes, in order."""
        query = select(LedgerEntry.envelope).order_by(col(LedgerEntry.ledger_index))
        return iter(self.ask.exec(query.execution_options(yield_per=500)))

    def node(self, level: int, number: int) -> bytes:
        """One that was read before comes from memory: a committed node never changes."""
        found = self._nodes.get((level, number))
        if found is None:
            query = select(LedgerNode.hash).where(
                LedgerNode.level == level, LedgerNode.number == number
            )
            found = self.ask.exec(query).one()
            if len(self._nodes) >= MOST_NODES:
                self._nodes.clear()
            self._nodes[level, number] = found
        return found

    # questions

    def committee(self, benchmark_id: int) -> set[str]:
        query = select(CommitteeMember.name).where(CommitteeMember.benchmark_id == benchmark_id)
        return set(self.ask.exec(query).all())

    def committees_of(self, name: str) -> set[int]:
        query = select(CommitteeMember.benchmark_id).where(CommitteeMember.name == name)
        return set(self.ask.exec(query).all())

    def live_association(
        self, benchmark_id: int, dataset_id: str = "", model_id: int = 0
    ) -> Association | None:
        query = select(Association).where(
            Association.benchmark_id == benchmark_id,
            Association.dataset_id == dataset_id,
            Association.model_id == model_id,
            col(Association.state).in_(LIVE_ASSOCIATIONS),
        )
        return self.ask.exec(query).first()

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
        others = [m for m in self.ask.exec(query) if m.id != benchmark.reference_model_id]
        return [self.model(benchmark.reference_model_id), *others]

    def events(self, association_id: int) -> Sequence[AssociationEvent]:
        query = select(AssociationEvent).where(AssociationEvent.association_id == association_id)
        return self.ask.exec(query.order_by(col(AssociationEvent.number))).all()

    def votes(self, association_id: int) -> dict[str, str]:
        """What each member decided last, `approve` or `reject`; who is revoked has no vote."""
        said = {e.actor: e.what for e in self.events(association_id) if e.what in VOTES}
        return {
            name: word
            for name, word in said.items()
            if self.participant(name).revoked_index is None
        }

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
        return self.ask.exec(query).first()

    def result_by_digest(self, envelope_digest: str) -> Result | None:
        query = select(Result).where(Result.envelope_digest == envelope_digest)
        return self.ask.exec(query).first()

    def result_by_name(self, name: str) -> Result | None:
        query = select(Result).where(Result.name == name, Result.superseded_by == "")
        return self.ask.exec(query.order_by(col(Result.purpose), col(Result.id))).first()

    def open_executions(self, site: str) -> Sequence[Execution]:
        query = select(Execution).where(
            Execution.site == site, col(Execution.state).not_in(ENDED_EXECUTIONS)
        )
        return self.ask.exec(query.order_by(col(Execution.id))).all()

    def open_execution_ids(self, site: str) -> set[int]:
        query = select(Execution.id).where(
            Execution.site == site, col(Execution.state).not_in(ENDED_EXECUTIONS)
        )
        return set(self.ask.exec(query))

    def own_dataset_ids(self, site: str, dataset_ids: Sequence[str]) -> set[str]:
        """Those that the site registered, of a few hundred or less."""
        query = select(Dataset.id).where(
            Dataset.site == site, col(Dataset.id).in_(set(dataset_ids))
        )
        return set(self.ask.exec(query))

    def open_execution(self, benchmark_id: int, dataset_id: str, digest: str) -> Execution | None:
        query = select(Execution).where(
            Execution.benchmark_id == benchmark_id,
            Execution.dataset_id == dataset_id,
            Execution.model_digest == digest,
            col(Execution.state).not_in(ENDED_EXECUTIONS),
        )
        return self.ask.exec(query).first()

    def benchmark_named(self, name: str) -> Benchmark | None:
        return self.ask.exec(select(Benchmark).where(Benchmark.name == name)).first()

    def container_of(self, digest: str) -> Container | None:
        return self.ask.exec(select(Container).where(Container.digest == digest)).first()

    def model_of(self, digest: str) -> Model | None:
        return self.ask.exec(select(Model).where(Model.digest == digest)).first()

    def dataset_of(self, prepared_fingerprint: str) -> Dataset | None:
        query = select(Dataset).where(Dataset.prepared_fingerprint == prepared_fingerprint)
        return self.ask.exec(query).first()

    def news(self, site: str, cursor: int, count: int) -> Sequence[LedgerEntry]:
        """Up to `count` entries from `cursor` on that concern a site, oldest first."""
        query = (
            select(LedgerEntry)
            .join(News, col(News.ledger_index) == col(LedgerEntry.ledger_index))
            .where(News.site == site, col(News.ledger_index) >= cursor)
            .order_by(col(LedgerEntry.ledger_index))
            .limit(count)
        )
        return self.ask.exec(query).all()

    def datasets_offered_to(self, name: str) -> set[str]:
        """Datasets that ever asked to take part in a benchmark of this committee member."""
        query = (
            select(Association.dataset_id)
            .join(
                CommitteeMember,
                col(CommitteeMember.benchmark_id) == col(Association.benchmark_id),
            )
            .where(CommitteeMember.name == name, Association.dataset_id != "")
        )
        return set(self.ask.exec(query).all())

    def models_of(self, owner: str) -> set[int]:
        return set(self.ask.exec(select(Model.id).where(Model.owner == owner)).all())

    def approved_datasets(self, benchmark_id: int) -> Sequence[Dataset]:
        """In the order of their requests."""
        query = (
            select(Dataset)
            .join(Association, col(Association.dataset_id) == col(Dataset.id))
            .where(
                Association.benchmark_id == benchmark_id,
                Association.state == reg.ASSOCIATION_STATE_APPROVED,
            )
            .order_by(col(Association.id))
        )
        return self.ask.exec(query).all()

    def latest_executions(self, benchmark_id: int) -> Sequence[Execution]:
        """The newest of each dataset and model. Of those for the benchmark's sake: tests are
        another matter."""
        newest = (
            select(func.max(Execution.id))
            .where(
                Execution.purpose == pb.PURPOSE_BENCHMARK,
                Execution.benchmark_id == benchmark_id,
            )
            .group_by(col(Execution.dataset_id), col(Execution.model_id))
        )
        return self.ask.exec(select(Execution).where(col(Execution.id).in_(newest))).all()

    def submitted(self, benchmark_id: int) -> set[tuple[str, int]]:
        """(dataset, model) of which there is a result for the benchmark's sake."""
        query = select(Result.dataset_id, Result.model_id).where(
            Result.benchmark_id == benchmark_id,
            Result.purpose == pb.PURPOSE_BENCHMARK,
            Result.superseded_by == "",
        )
        return set(self.ask.exec(query))

    def participants(self, names: Collection[str]) -> Sequence[Participant]:
        """Those of the names, in no order."""
        return self.ask.exec(select(Participant).where(col(Participant.name).in_(names))).all()

    def page(
        self, table: type[Row], order: Any, after: Any, size: int, **where: Any
    ) -> Sequence[Row]:
        """Up to `size` rows past the key `after`, where the columns equal what is given."""
        query = select(table).filter_by(**where)
        if after is not None:
            query = query.where(order > after)
        return self.ask.exec(query.order_by(order).limit(size)).all()

    def count(self, table: type[SQLModel], **where: Any) -> int:
        """How many rows have columns that equal what is given."""
        return self.ask.exec(select(func.count()).select_from(table).filter_by(**where)).one()

    @property
    def database(self) -> str:
        """The kind of database: sqlite or postgresql."""
        return self.session.get_bind().dialect.name
