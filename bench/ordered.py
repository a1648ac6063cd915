"""Sites that each hold an open order, and all that had to be stated until then."""

from __future__ import annotations

from collections.abc import Sequence

from bench.bulk import Bulk, Member
from housecall.statement import digest
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.world import (
    RELEASER,
    benchmark_statement,
    operational_statement,
    register_model,
    sha,
)


def order_everyone(bulk: Bulk, sites: Sequence[Member]) -> dict[str, int]:
    """Execution ids by the sites' names: the reference model on everyone's dataset, a statement a
    dataset, as the CLI orders it."""
    carla, mona = bulk.join(["carla", "mona"], pb.ROLE_PERSON)
    model = register_model(mona, "reference")
    said = benchmark_statement(carla, model)
    said.policy.datasets.mode = pb.APPROVAL_MODE_ALWAYS
    (benchmark,) = bulk.state([(carla, said)])
    bulk.state((site, registration(_dataset_id(site), said.preparation)) for site in sites)
    bulk.state((site, operational_statement(_dataset_id(site))) for site in sites)
    result = pb.ResultSubmitted(
        benchmark_id=int(benchmark.id),
        benchmark_digest=digest(benchmark.envelope),
        model=model,
        evaluator=said.evaluator,
        purpose=pb.PURPOSE_TEST,
        releaser=RELEASER,
    )
    result.metrics.update({"accuracy": 0.9})
    tests = bulk.state((site, _test(site, result)) for site in sites)
    bulk.state(
        (site, _request(site, digest(test.envelope)))
        for site, test in zip(sites, tests, strict=True)
    )
    orders = bulk.state((carla, _order(site, model)) for site in sites)
    return {site.name: int(order.id) for site, order in zip(sites, orders, strict=True)}


def registration(dataset_id: str, preparation: pb.Pin) -> pb.DatasetRegistered:
    return pb.DatasetRegistered(
        dataset_id=dataset_id,
        name="bench",
        preparation=preparation,
        raw_fingerprint=sha(f"raw {dataset_id}"),
        releaser=RELEASER,
    )


def _dataset_id(site: Member) -> str:
    return f"{site.identity.short_name}/1"


def _test(site: Member, result: pb.ResultSubmitted) -> pb.ResultSubmitted:
    said = pb.ResultSubmitted()
    said.CopyFrom(result)
    said.dataset_id = _dataset_id(site)
    said.prepared_fingerprint = sha(f"prepared {said.dataset_id}")
    return said


def _request(site: Member, test_digest: str) -> pb.AssociationRequested:
    return pb.AssociationRequested(
        benchmark_id=1, dataset_id=_dataset_id(site), test_digest=test_digest, releaser=RELEASER
    )


def _order(site: Member, model: pb.Pin) -> pb.ExecutionRequested:
    line = pb.RequestedExecution(dataset_id=_dataset_id(site), model=model)
    return pb.ExecutionRequested(benchmark_id=1, purpose=pb.PURPOSE_BENCHMARK, executions=[line])
