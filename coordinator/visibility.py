"""Who may see what: descriptions are open to everyone enrolled; results, statistics and what is
asked of a site go to that site, the benchmark's committee and the model's owner. How far a dataset
is prepared, where its site tells it, goes to the owner of the preparation, too. Operators keep the
store and see all of it."""

from __future__ import annotations

from functools import cached_property

from coordinator.caller import Caller, CallerRole
from coordinator.ledger import predicate_of
from coordinator.models import (
    Association,
    Dataset,
    Execution,
    LedgerEntry,
    News,
    Result,
)
from coordinator.preparations import Preparation
from coordinator.store import Reader
from housecall.identity import short_name
from housecall.v1 import statements_pb2 as pb

OPEN_KINDS = frozenset(
    {
        "ParticipantEnrolled",
        "ParticipantRevoked",
        "ContainerRegistered",
        "BenchmarkRegistered",
        "BenchmarkPolicyChanged",
        "ModelRegistered",
    }
)


class Eyes:
    """What one caller sees through one session."""

    def __init__(self, reader: Reader, caller: Caller) -> None:
        self._reader = reader
        self._caller = caller
        self._all = caller.role is CallerRole.OPERATOR

    @cached_property
    def committees(self) -> set[int]:
        return self._reader.committees_of(self._caller.name)

    @cached_property
    def _offered(self) -> set[str]:
        return self._reader.datasets_offered_to(self._caller.name)

    @cached_property
    def _offering(self) -> set[str]:
        return {dataset_id.partition("/")[0] for dataset_id in self._offered}

    @cached_property
    def _models(self) -> set[int]:
        return self._reader.models_of(self._caller.name)

    def dataset(self, row: Dataset) -> bool:
        """Its site's, and from its first request on those whom it asked."""
        return self._all or row.site == self._caller.name or row.id in self._offered

    def preparation(self, row: Dataset, said: Preparation) -> bool:
        """Besides those who see the dataset: the owner of its preparation container, and the
        committee of the benchmark that its site names, if that one has this preparation."""
        container = self._reader.container_of(row.preparation_digest)
        if container is not None and container.owner == self._caller.name:
            return True
        if said.benchmark_id not in self.committees:
            return False
        benchmark = self._reader.benchmark(said.benchmark_id)
        return benchmark.preparation_digest == row.preparation_digest

    def association(self, row: Association) -> bool:
        return (
            self._all
            or row.requester == self._caller.name
            or row.benchmark_id in self.committees
            or row.model_id in self._models
        )

    def result(self, row: Result) -> bool:
        return (
            self._all
            or row.site == self._caller.name
            or row.benchmark_id in self.committees
            or row.model_id in self._models
        )

    def execution(self, row: Execution) -> bool:
        return (
            self._all
            or self._caller.name in (row.site, row.requester)
            or row.benchmark_id in self.committees
        )

    def site(self, name: str) -> bool:
        return self._all or name == self._caller.name or short_name(name) in self._offering

    def entry(self, row: LedgerEntry) -> bool:
        """May the caller read this entry's envelope?"""
        if self._all or row.kind in OPEN_KINDS or row.signer == self._caller.name:
            return True
        if self._reader.find(News, (self._caller.name, row.ledger_index)):
            return True
        return self._concerns_committee(predicate_of(row))

    def _concerns_committee(self, said: object) -> bool:
        reader = self._reader
        match said:
            case pb.ResultSubmitted():
                return said.benchmark_id in self.committees or said.model.id in self._models
            case pb.AssociationRequested() | pb.ExecutionRequested():
                return said.benchmark_id in self.committees
            case pb.AssociationDecided() | pb.AssociationWithdrawn():
                return self.association(reader.association(said.association_id))
            case pb.ExecutionEnded():
                return self.execution(reader.execution(said.execution_id))
            case pb.ExecutionCancelled():
                return any(self.execution(reader.execution(n)) for n in said.execution_ids)
            case pb.DatasetRegistered() | pb.DatasetOperational():
                return self.dataset(reader.dataset(said.dataset_id))
        return False
