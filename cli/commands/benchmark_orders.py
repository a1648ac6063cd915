"""Orders for every associated site: what has no result yet, pinned and signed by a member."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from cli import connect, publish
from cli.ask import confirm
from cli.connect import End
from cli.output import Column, Row, as_table, print_json, show_list
from cli.pins import checked_model
from cli.settings import Settings
from housecall.errors import Kind, Refusal
from housecall.v1 import registry_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub

ENDED = frozenset(
    {
        pb.EXECUTION_STATE_SUCCEEDED,
        pb.EXECUTION_STATE_FAILED,
        pb.EXECUTION_STATE_REFUSED,
        pb.EXECUTION_STATE_CANCELLED,
    }
)
COLUMNS: list[Column] = [
    ("dataset", "dataset_id"),
    ("model", lambda row: f"{row['model_id']} {row['model_name']}"),
    ("digest", "digest"),
]


def order_everywhere(
    settings: Settings,
    benchmark_id: int,
    wanted: Sequence[int],
    *,
    rerun: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Order what is missing: approved datasets by approved models, less standing results and
    open orders (`rerun` orders those with results, too). Verified, shown, asked, appended."""
    with connect.signer(settings) as (end, identity):
        request = registry_pb2.GetBenchmarkRequest(id=benchmark_id)
        found = end.call(RegistryStub(end.channel).GetBenchmark, request)
        models = choose(list(found.models), wanted)
        pairs = _missing(end, benchmark_id, models, rerun=rerun)
        rows = [_row(dataset, model) for dataset, model in pairs]
        if not rows or dry_run:
            show_list(settings, rows, COLUMNS, "nothing to order: every pair has a result or order")
            return
        for model in {model.id: model for _, model in pairs}.values():
            checked_model(end, model)
        settings.say(as_table(rows, COLUMNS))
        confirm(f"Order these {len(rows)} executions?", yes=yes)
        orders = [
            _order(end, identity, found.benchmark, dataset_id, list(group))
            for dataset_id, group in groupby(pairs, key=lambda pair: pair[0])
        ]
    if settings.output == "json":
        print_json({"orders": orders, "executions": rows})
    else:
        for order in orders:
            settings.say(f"{order['dataset_id']}: ledger entry {order['ledger_index']}")
        settings.say(f"ordered {len(rows)} executions")
    settings.next(f"housecall benchmark watch {benchmark_id}")


def _order(
    end: End, identity: Any, benchmark: Any, dataset_id: str, pairs: list[tuple[str, Any]]
) -> Row:
    """One statement a dataset: a site need not learn from its order who else takes part."""
    predicate = pb.ExecutionRequested(
        benchmark_id=benchmark.id,
        purpose=pb.PURPOSE_BENCHMARK,
        executions=[requested(dataset_id, model) for _, model in pairs],
    )
    subjects = {f"benchmark {benchmark.statement.name}": benchmark.origin.envelope_digest}
    subjects |= {f"model {model.id}": model.statement.container.digest for _, model in pairs}
    receipt = publish.publish(end, identity, predicate, subjects).receipt
    return {"dataset_id": dataset_id, "ledger_index": receipt.ledger_index}


def choose(models: list[Any], wanted: Sequence[int]) -> list[Any]:
    """The wanted ones of the approved models; all where none is named."""
    known = {model.id for model in models}
    for model_id in wanted:
        if model_id not in known:
            approved = ", ".join(map(str, sorted(known))) or "none"
            raise Refusal(
                Kind.NOT_READY,
                "MODEL_NOT_APPROVED",
                f"model {model_id} is not approved here: expected one of {approved}",
            )
    return [model for model in models if not wanted or model.id in wanted]


def requested(dataset_id: str, model: Any) -> pb.RequestedExecution:
    pin = pb.Pin(id=model.id, digest=model.statement.container.digest)
    return pb.RequestedExecution(dataset_id=dataset_id, model=pin)


def _missing(
    end: End, benchmark_id: int, models: Iterable[Any], *, rerun: bool
) -> list[tuple[str, Any]]:
    stub = RegistryStub(end.channel)
    associations = end.pages(
        stub.ListAssociations,
        registry_pb2.ListAssociationsRequest(
            benchmark_id=benchmark_id, state=registry_pb2.ASSOCIATION_STATE_APPROVED
        ),
        "associations",
    )
    results = end.pages(
        stub.ListResults,
        registry_pb2.ListResultsRequest(benchmark_id=benchmark_id, purpose=pb.PURPOSE_BENCHMARK),
        "results",
    )
    executions = end.pages(
        stub.ListExecutions,
        registry_pb2.ListExecutionsRequest(benchmark_id=benchmark_id),
        "executions",
    )
    have = {_key(e.dataset_id, e.model) for e in executions if e.state not in ENDED}
    if not rerun:
        have |= {_key(r.statement.dataset_id, r.statement.model) for r in results}
    return [
        (association.dataset_id, model)
        for association in associations
        if association.dataset_id
        for model in models
        if _key(association.dataset_id, requested("", model).model) not in have
    ]


def _key(dataset_id: str, pin: pb.Pin) -> tuple[str, int, str]:
    return dataset_id, pin.id, pin.digest


def _row(dataset_id: str, model: Any) -> Row:
    return {
        "dataset_id": dataset_id,
        "model_id": model.id,
        "model_name": model.statement.name,
        "digest": model.statement.container.digest,
    }
