"""When is a result acceptable."""

from __future__ import annotations

from coordinator.lifecycle import ENDED_EXECUTIONS
from coordinator.models import Benchmark, Dataset, Execution, Result
from coordinator.rules.datasets import own_dataset, require_releaser
from coordinator.rules.executions import end, require_approved
from coordinator.rules.fact import Effect, Fact, conflict, invalid, not_ready
from coordinator.rules.models import check_pin
from coordinator.store import Writer
from housecall.identity import short_name
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb


def submitted(writer: Writer, said: pb.ResultSubmitted, fact: Fact) -> Effect:
    """Of the site's own operational dataset, with what the benchmark pins, once."""
    dataset = own_dataset(writer, said.dataset_id, fact)
    require_releaser(said)
    benchmark = writer.benchmark(said.benchmark_id)
    _check_what(writer, said, benchmark, dataset)
    _check_standing(writer, said, benchmark)
    execution = _check_execution(writer, said)
    previous = writer.standing_result(benchmark.id, dataset.id, said.model.id, said.purpose)
    _check_supersedes(said, previous)
    number = writer.next_id(Result)
    name = f"b{benchmark.id}m{said.model.id}d{dataset.id.partition('/')[2]}"
    if previous:
        previous.superseded_by = fact.statement.envelope_digest
        writer.add(previous)
    writer.add(
        Result(
            id=number,
            ledger_index=fact.index,
            name=f"{short_name(dataset.site)}/{name}",
            site=dataset.site,
            benchmark_id=benchmark.id,
            dataset_id=dataset.id,
            model_id=said.model.id,
            purpose=said.purpose,
            envelope_digest=fact.statement.envelope_digest,
        )
    )
    if execution:
        end(writer, execution, pb.EXECUTION_STATE_SUCCEEDED, "", fact)
    return Effect(f"{short_name(dataset.site)}/{name}", frozenset({dataset.site}))


def _check_what(
    writer: Writer, said: pb.ResultSubmitted, benchmark: Benchmark, dataset: Dataset
) -> None:
    if dataset.state != reg.DATASET_STATE_OPERATIONAL:
        raise not_ready("DATASET_NOT_OPERATIONAL", f"dataset {dataset.id} is not operational")
    if said.prepared_fingerprint != dataset.prepared_fingerprint:
        raise invalid(
            "DATASET_CHANGED",
            f"dataset {dataset.id}: expected prepared fingerprint {dataset.prepared_fingerprint}, "
            f"got {said.prepared_fingerprint}",
        )
    expected = benchmark.envelope_digest
    if said.benchmark_digest != expected:
        raise invalid(
            "PIN_DIFFERS",
            f"benchmark {benchmark.id}: expected digest {expected}, got {said.benchmark_digest}",
        )
    model = writer.model(said.model.id)
    check_pin(said.model, model.id, model.digest, "model")
    if said.evaluator.digest != benchmark.evaluator_digest:
        raise invalid(
            "PIN_DIFFERS",
            f"evaluator: expected {benchmark.evaluator_digest}, got {said.evaluator.digest}",
        )
    if not said.metrics.fields:
        raise invalid("METRICS_EMPTY", "expected metrics, got none")
    if said.partial and not benchmark.allow_partial_results:
        raise invalid(
            "PARTIAL_NOT_ALLOWED", f"benchmark {benchmark.id} does not take partial results"
        )


def _check_standing(writer: Writer, said: pb.ResultSubmitted, benchmark: Benchmark) -> None:
    """Benchmark results need approved associations; tests come before any."""
    if said.purpose == pb.PURPOSE_BENCHMARK:
        require_approved(writer, benchmark, dataset_id=said.dataset_id)
        if said.model.id != benchmark.reference_model_id:
            require_approved(writer, benchmark, model_id=said.model.id)
    elif said.purpose != pb.PURPOSE_TEST:
        raise invalid("PURPOSE_INVALID", "purpose: expected benchmark or test")


def _check_execution(writer: Writer, said: pb.ResultSubmitted) -> Execution | None:
    if not said.execution_id:
        return None
    execution = writer.execution(said.execution_id)
    got = (execution.benchmark_id, execution.dataset_id, execution.model_id, execution.purpose)
    if got != (said.benchmark_id, said.dataset_id, said.model.id, said.purpose):
        raise invalid("EXECUTION_DIFFERS", f"execution {execution.id} is of something else")
    if execution.state in ENDED_EXECUTIONS:
        raise conflict("EXECUTION_ENDED", f"execution {execution.id} has ended already")
    return execution


def _check_supersedes(said: pb.ResultSubmitted, previous: Result | None) -> None:
    if previous and said.supersedes != previous.envelope_digest:
        raise conflict(
            "RESULT_EXISTS",
            f"result {previous.name} was submitted already (ledger entry "
            f"{previous.ledger_index}); to replace it, submit with --supersede",
        )
    if not previous and said.supersedes:
        raise invalid("SUPERSEDES_NOTHING", "there is no result that this one could replace")
