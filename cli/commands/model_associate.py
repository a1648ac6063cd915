"""`housecall model associate`: test a model where the benchmark says, then ask for its place."""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING

import click

from cli import connect, publish
from cli.ask import confirm
from cli.command import example, output_option, yes_option
from cli.commands.benchmark_orders import ENDED, requested
from cli.connect import End
from cli.messages import plain, word
from cli.output import tree
from cli.pins import checked_model
from cli.settings import Settings, pass_settings
from housecall.errors import Kind, Refusal
from housecall.v1 import registry_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub

if TYPE_CHECKING:
    from housecall.identity import Identity

POLL_SECONDS = 1.0
_STATES = pb.ExecutionState.DESCRIPTOR


@click.command(epilog=example("housecall model associate 4 --benchmark 1"))
@click.argument("model_id", metavar="ID", type=int)
@click.option("--benchmark", "benchmark_id", type=int, required=True, help="The benchmark.")
@click.option(
    "--timeout",
    type=click.IntRange(1),
    default=3600,
    show_default=True,
    help="Seconds to wait for the test's result.",
)
@yes_option
@output_option()
@pass_settings
def associate(
    settings: Settings, model_id: int, benchmark_id: int, timeout: int, yes: bool
) -> None:
    """Ask for a model's place in a benchmark.

    Where the benchmark names a reference dataset, the model is tested there first, by order; the
    test's metrics are shown, and the request cites them.
    """
    settings.on_interrupt = "the test goes on; run the same command again to wait for it"
    with connect.signer(settings) as (end, identity):
        stub = RegistryStub(end.channel)
        model = end.call(stub.GetModel, registry_pb2.GetModelRequest(id=model_id)).model
        checked_model(end, model)
        request = registry_pb2.GetBenchmarkRequest(id=benchmark_id)
        benchmark = end.call(stub.GetBenchmark, request).benchmark
        test = _test(settings, end, identity, benchmark, model, timeout)
        if test is not None:
            settings.say(f"test result {test.name} ({test.origin.envelope_digest}):")
            for line in tree(plain(test.statement)["metrics"] or {}, 1):
                settings.say(line)
        confirm(f"Ask for model {model_id} to take part in benchmark {benchmark_id}?", yes=yes)
        predicate = pb.AssociationRequested(
            benchmark_id=benchmark_id,
            model_id=model_id,
            test_digest=test.origin.envelope_digest if test else "",
        )
        response = publish.publish(end, identity, predicate, _subjects(benchmark, model))
    publish.show_receipt(settings, response, "requested association {id}")
    settings.next(f"housecall association show {response.id}")


def _test(
    settings: Settings,
    end: End,
    identity: Identity,
    benchmark: registry_pb2.Benchmark,
    model: registry_pb2.Model,
    timeout: float,
) -> registry_pb2.Result | None:
    """The result that the request will cite; None where the benchmark wants no test."""
    dataset_id = benchmark.policy.reference_dataset_id
    if not dataset_id:
        return None
    known = _standing(end, benchmark.id, dataset_id, model)
    if known is not None:
        return known
    execution = _open_test(end, benchmark.id, dataset_id, model)
    if execution is None:
        order = pb.ExecutionRequested(
            benchmark_id=benchmark.id,
            purpose=pb.PURPOSE_TEST,
            executions=[requested(dataset_id, model)],
        )
        publish.publish(end, identity, order, _subjects(benchmark, model))
        settings.note(f"ordered a test of model {model.id} on {dataset_id}")
        execution = _open_test(end, benchmark.id, dataset_id, model, ended=True)
    if execution is not None:
        _wait(settings, end, execution.id, timeout)
    found = _standing(end, benchmark.id, dataset_id, model)
    if found is None:
        raise Refusal(
            Kind.NOT_READY,
            "TEST_HAS_NO_RESULT",
            f"the test of model {model.id} on {dataset_id} ended, but its result is not to be "
            "seen here: ask the benchmark's committee",
        )
    return found


def _wait(settings: Settings, end: End, execution_id: int, timeout: float) -> None:
    """Until the execution ended. Refuses when it ended without a result, or takes too long; a
    coordinator that is away for a while is waited for."""
    until, said = monotonic() + timeout, ""
    while True:
        execution, text = _state(end, execution_id)
        if text != said:
            settings.note(f"test, execution {execution_id}: {text}{_hint(execution)}")
            said = text
        if execution.state == pb.EXECUTION_STATE_SUCCEEDED:
            return
        if execution.state in ENDED:
            raise Refusal(
                Kind.NOT_READY,
                "TEST_FAILED",
                f"the test ended without a result: {text} {execution.reason}; see "
                f"`housecall execution show {execution_id}` and ask the reference site",
            )
        if monotonic() >= until:
            raise Refusal(
                Kind.NOT_READY,
                "TEST_NOT_ENDED",
                f"the test is still {text} after {timeout:.0f} s: run the command again later"
                f"{_hint(execution)}",
            )
        sleep(POLL_SECONDS)


def _state(end: End, execution_id: int) -> tuple[registry_pb2.Execution, str]:
    """The execution and its state in words; an empty one while the coordinator is away."""
    request = registry_pb2.GetExecutionRequest(id=execution_id)
    try:
        execution = end.call(RegistryStub(end.channel).GetExecution, request).execution
    except Refusal as refusal:
        if refusal.kind is not Kind.UNAVAILABLE:
            raise
        return registry_pb2.Execution(), f"not to be seen, {refusal.message}"
    text = word(_STATES, execution.state) or "unknown"
    return execution, f"{text}: {execution.step}" if execution.step else text


def _hint(execution: registry_pb2.Execution) -> str:
    """Who has to act, where it waits for a person."""
    if execution.state not in (
        pb.EXECUTION_STATE_WAITING_CONSENT,
        pb.EXECUTION_STATE_WAITING_RELEASE,
    ):
        return ""
    return "; a person at the reference site must act (`housecall review ls` there)"


def _standing(
    end: End, benchmark_id: int, dataset_id: str, model: registry_pb2.Model
) -> registry_pb2.Result | None:
    """The newest test result of exactly this model's content."""
    request = registry_pb2.ListResultsRequest(
        benchmark_id=benchmark_id,
        dataset_id=dataset_id,
        model_id=model.id,
        purpose=pb.PURPOSE_TEST,
    )
    found = end.pages(RegistryStub(end.channel).ListResults, request, "results")
    digest = model.statement.container.digest
    return next((r for r in reversed(found) if r.statement.model.digest == digest), None)


def _open_test(
    end: End, benchmark_id: int, dataset_id: str, model: registry_pb2.Model, *, ended: bool = False
) -> registry_pb2.Execution | None:
    """The newest test order for the model; ended ones only when wanted."""
    request = registry_pb2.ListExecutionsRequest(benchmark_id=benchmark_id, dataset_id=dataset_id)
    found = end.pages(RegistryStub(end.channel).ListExecutions, request, "executions")
    mine = (
        e
        for e in reversed(found)
        if e.purpose == pb.PURPOSE_TEST and e.model.id == model.id
        if ended or e.state not in ENDED
    )
    return next(mine, None)


def _subjects(benchmark: registry_pb2.Benchmark, model: registry_pb2.Model) -> dict[str, str]:
    return {
        f"benchmark {benchmark.statement.name}": benchmark.origin.envelope_digest,
        f"model {model.statement.name}": model.statement.container.digest,
    }
