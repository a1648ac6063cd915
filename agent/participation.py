"""A dataset's place in benchmarks: its test and request, its withdrawal, and whether it may run.

As in `datasets.py`, each draft is a job whose feed ends with what would leave.
"""

from __future__ import annotations

from agent.catalog import Catalog, Dataset
from agent.events import Feed
from agent.execution import Executor
from agent.journal import Journal
from agent.records import Execution
from agent.registry import Registry
from agent.release import Item, Releases, local_user
from agent.results import Results
from agent.runs import Runs
from agent.worker import Job, Worker
from housecall.errors import Kind, Refusal
from housecall.statement import digest
from housecall.v1 import statements_pb2 as pb


class Participation:
    def __init__(
        self,
        catalog: Catalog,
        journal: Journal,
        registry: Registry,
        executor: Executor,
        runs: Runs,
        results: Results,
        releases: Releases,
        worker: Worker,
    ) -> None:
        self._catalog, self._journal, self._registry = catalog, journal, registry
        self._executor, self._runs, self._results = executor, runs, results
        self._releases, self._worker = releases, worker

    def draft_association(self, dataset_id: str, benchmark_id: int, uid: int) -> Job:
        dataset = self._catalog.get(dataset_id)
        key = f"associate:{uid}:{dataset.number}:{benchmark_id}"
        return self._worker.spawn(key, lambda job: self._associate(dataset, benchmark_id, uid, job))

    def draft_withdrawal(self, association_id: int, reason: str, uid: int) -> Job:
        key = f"withdraw:{uid}:{association_id}:{digest(reason.encode())}"
        return self._worker.spawn(
            key, lambda job: self._withdraw(association_id, reason, uid, job.feed)
        )

    def _associate(self, dataset: Dataset, benchmark_id: int, uid: int, job: Job) -> None:
        benchmark = self._registry.benchmark(benchmark_id)
        reference = benchmark.statement.reference_model
        recipe = self._executor.recipe(benchmark_id, reference.id, dataset.id)
        earlier = self._earlier(benchmark_id, dataset)
        started = self._runs.start(recipe, "TEST")
        if started.job is not None:
            started.job.pass_on(job)
            started.job.outcome()
        execution = self._runs.cached(recipe, partial=False)
        if execution is None:
            raise Refusal(
                Kind.CONFLICT,
                "EXECUTION_ENDED",
                f"execution {started.execution.id}: expected the result of the test, got none; "
                "ask again",
            )
        items = []
        standing = self._results.standing("test", recipe.name)
        if standing is None:
            items.append(self._test_item(execution, uid))
            test_digest = self._releases.envelope_digest(items[0])
        else:
            test_digest = standing.envelope_digest
        said = pb.AssociationRequested(
            benchmark_id=benchmark_id,
            dataset_id=dataset.id,
            test_digest=test_digest,
            releaser=local_user(uid),
        )
        subjects = {
            f"dataset {dataset.id}": dataset.prepared_fingerprint,
            f"benchmark {benchmark_id}": benchmark.digest,
            "test": test_digest,
            **earlier,
        }
        items.append(Item(said, subjects, f"association:{benchmark_id}:{dataset.id}", dataset.id))
        job.feed.emit(self._releases.draft(uid, items, {}))

    def _test_item(self, execution: Execution, uid: int) -> Item:
        return self._results.item(execution, "TEST", local_user(uid), order=False)

    def _earlier(self, benchmark_id: int, dataset: Dataset) -> dict[str, str]:
        """Earlier requests, as subjects: a new one must not be the very bytes of an old one, or it
        would get the old one's receipt. Refuses while one is live, before the reference model runs
        for nothing; the coordinator decides again."""
        found = self._registry.associations(benchmark_id, dataset.id)
        live = [each for each in found if each.state in ("REQUESTED", "APPROVED")]
        if live:
            raise Refusal(
                Kind.CONFLICT,
                "ASSOCIATION_EXISTS",
                f"dataset {dataset.id} and benchmark {benchmark_id}: expected none yet, got "
                f"association {live[-1].id}, which is {live[-1].state.lower()}",
            )
        return {f"earlier association {each.id}": each.envelope_digest for each in found}

    def _withdraw(self, association_id: int, reason: str, uid: int, feed: Feed) -> None:
        association = self._registry.association(association_id)
        if not association.dataset_id:
            raise Refusal(
                Kind.NOT_ALLOWED,
                "ASSOCIATION_NOT_OURS",
                f"association {association_id}: expected one of this site's datasets, got a "
                "model's",
            )
        dataset = self._catalog.get(association.dataset_id)
        said = pb.AssociationWithdrawn(
            association_id=association_id, reason=reason, releaser=local_user(uid)
        )
        subjects = {f"association {association_id}": association.envelope_digest}
        item = Item(said, subjects, f"withdrawal:{association_id}", dataset.id)
        feed.emit(self._releases.draft(uid, [item], {}))


def require_approved(registry: Registry, benchmark_id: int, dataset_id: str) -> None:
    """A run before approval is refused; so is one after the approval was taken back."""
    registry.benchmark(benchmark_id)  # BENCHMARK_NOT_FOUND before anything else
    found = registry.associations(benchmark_id, dataset_id)
    if not any(each.state == "APPROVED" for each in found):
        got = found[-1].state.lower() if found else "not requested"
        number = dataset_id.rpartition("/")[2]
        advice = f"run `housecall dataset associate {number} --benchmark {benchmark_id}`"
        if got == "requested":
            advice = "wait for the committee"
        if got == "rejected":
            advice = f"`housecall association show {found[-1].id}` says why, then {advice}"
        raise Refusal(
            Kind.NOT_READY,
            "NOT_APPROVED",
            f"dataset {dataset_id} and benchmark {benchmark_id}: expected an approved "
            f"association, got one that is {got}; {advice}",
        )
