"""When may executions be ordered, cancelled, or end without a result."""

from __future__ import annotations

from coordinator.caller import CallerRole
from coordinator.lifecycle import ENDED_EXECUTIONS, SITE_ENDINGS
from coordinator.models import Benchmark, Execution
from coordinator.rules.datasets import require_releaser
from coordinator.rules.fact import (
    Effect,
    Fact,
    conflict,
    invalid,
    limit_text,
    not_entitled,
    not_ready,
)
from coordinator.rules.models import check_pin
from coordinator.store import Writer
from housecall.v1 import statements_pb2 as pb

MOST_LINES = 500


def requested(writer: Writer, said: pb.ExecutionRequested, fact: Fact) -> Effect:
    """Each line names an approved dataset and model; tests run on the reference dataset only."""
    benchmark = writer.benchmark(said.benchmark_id)
    if not said.executions:
        raise invalid("EXECUTIONS_MISSING", "expected at least one execution, got none")
    if len(said.executions) > MOST_LINES:
        raise invalid("EXECUTIONS_TOO_MANY", f"expected at most {MOST_LINES} lines a statement")
    check = _check_test_line if said.purpose == pb.PURPOSE_TEST else _check_line
    if said.purpose not in (pb.PURPOSE_TEST, pb.PURPOSE_BENCHMARK):
        raise invalid("PURPOSE_INVALID", "purpose: expected benchmark or test")
    for line in said.executions:
        check(writer, benchmark, line, fact)
        if other := writer.open_execution(benchmark.id, line.dataset_id, line.model.digest):
            raise conflict(
                "EXECUTION_OPEN",
                f"execution {other.id} of model {line.model.id} on dataset {line.dataset_id} has "
                "not ended: wait for it, or cancel it first",
            )
    keys = [(line.dataset_id, line.model.id) for line in said.executions]
    if len(set(keys)) != len(keys):
        raise invalid("EXECUTIONS_REPEATED", "an execution is requested twice in one statement")
    return _record(writer, said, fact)


def _check_line(
    writer: Writer, benchmark: Benchmark, line: pb.RequestedExecution, fact: Fact
) -> None:
    if fact.caller.name not in writer.committee(benchmark.id):
        raise not_entitled(fact, f"expected a committee member of benchmark {benchmark.id}")
    model = writer.model(line.model.id)
    check_pin(line.model, model.id, model.digest, "model")
    if model.id != benchmark.reference_model_id:
        require_approved(writer, benchmark, model_id=model.id)
    require_approved(writer, benchmark, dataset_id=line.dataset_id)


def _check_test_line(
    writer: Writer, benchmark: Benchmark, line: pb.RequestedExecution, fact: Fact
) -> None:
    reference = pb.BenchmarkPolicy.FromString(benchmark.policy).reference_dataset_id
    if not reference or line.dataset_id != reference:
        raise invalid(
            "NOT_REFERENCE_DATASET",
            f"tests of benchmark {benchmark.id} run on {reference or 'no dataset yet'}, got "
            f"{line.dataset_id}",
        )
    model = writer.model(line.model.id)
    check_pin(line.model, model.id, model.digest, "model")
    if fact.caller.name not in {model.owner, *writer.committee(benchmark.id)}:
        raise not_entitled(fact, f"expected model {model.id}'s owner or a committee member")
    require_approved(writer, benchmark, dataset_id=reference)  # its site asked for it


def require_approved(
    writer: Writer, benchmark: Benchmark, *, dataset_id: str = "", model_id: int = 0
) -> None:
    """A run before approval is refused."""
    if not writer.is_approved(benchmark.id, dataset_id, model_id):
        what = f"dataset {dataset_id}" if dataset_id else f"model {model_id}"
        raise not_ready(
            "NOT_APPROVED",
            f"{what} is not approved for benchmark {benchmark.id}: see `housecall association ls "
            f"--benchmark {benchmark.id}`",
        )


def _record(writer: Writer, said: pb.ExecutionRequested, fact: Fact) -> Effect:
    first = writer.next_id(Execution, len(said.executions))
    rows = [
        Execution(
            id=first + number,
            ledger_index=fact.index,
            line=number,
            requester=fact.caller.name,
            benchmark_id=said.benchmark_id,
            dataset_id=line.dataset_id,
            site=writer.dataset(line.dataset_id).site,
            model_id=line.model.id,
            model_digest=line.model.digest,
            purpose=said.purpose,
            updated_at=fact.at,
        )
        for number, line in enumerate(said.executions)
    ]
    writer.add(*rows)
    return Effect(str(first), frozenset(row.site for row in rows))


def cancelled(writer: Writer, said: pb.ExecutionCancelled, fact: Fact) -> Effect:
    """By who requested it, any member of the committee, or an operator."""
    limit_text(said, ["reason"])
    rows = [writer.execution(number) for number in said.execution_ids]
    if not rows:
        raise invalid("EXECUTIONS_MISSING", "expected at least one execution, got none")
    committees = {number: writer.committee(number) for number in {r.benchmark_id for r in rows}}
    for row in rows:
        may = {row.requester, *committees[row.benchmark_id]}
        if fact.caller.name not in may and fact.caller.role is not CallerRole.OPERATOR:
            raise not_entitled(fact, f"execution {row.id} was requested by {row.requester}")
        require_open(row)
    for row in rows:
        end(writer, row, pb.EXECUTION_STATE_CANCELLED, said.reason or "CANCELLED", fact)
    return Effect(str(rows[0].id), frozenset(row.site for row in rows))


def ended(writer: Writer, said: pb.ExecutionEnded, fact: Fact) -> Effect:
    """The site says how its order ended without a result."""
    row = writer.execution(said.execution_id)
    if row.site != fact.caller.name:
        raise not_entitled(fact, f"execution {row.id} is {row.site}'s")
    require_releaser(said)
    if said.state not in SITE_ENDINGS:
        raise invalid("EXECUTION_STATE", "state: expected failed, refused or cancelled")
    if not said.reason.replace("_", "").isalnum() or len(said.reason) > 64:
        raise invalid("REASON_INVALID", "reason: expected a code such as STEP_FAILED")
    require_open(row)
    end(writer, row, said.state, said.reason, fact)
    return Effect(str(row.id), frozenset({row.site}))


def require_open(row: Execution) -> None:
    if row.state in ENDED_EXECUTIONS:
        word = pb.ExecutionState.Name(pb.ExecutionState.ValueType(row.state))[16:].lower()
        raise conflict("EXECUTION_ENDED", f"execution {row.id} has ended: {word}")


def end(writer: Writer, row: Execution, state: int, reason: str, fact: Fact) -> None:
    row.state, row.reason, row.updated_at = state, reason, fact.at
    writer.add(row)
