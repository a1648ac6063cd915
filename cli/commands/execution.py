"""`housecall execution`: one benchmark, dataset and model at one site, from order to result."""

from __future__ import annotations

import click

from cli import connect, publish
from cli.command import example, output_option
from cli.messages import number, plain, words
from cli.output import Column, show_list, show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub
from housecall.v1.site_pb2_grpc import SiteApiStub

STATES = pb.ExecutionState.DESCRIPTOR
LOCAL_COLUMNS: list[Column] = [
    ("id", "id"),
    ("order", lambda row: row["execution_id"] or None),
    ("benchmark", "benchmark_id"),
    ("model", "model_id"),
    ("dataset", "dataset_id"),
    ("state", "state"),
    ("step", "step"),
    ("reason", "reason"),
    ("updated", "updated_at"),
]
COLUMNS: list[Column] = [
    ("id", "id"),
    ("benchmark", "benchmark_id"),
    ("model", "model.id"),
    ("dataset", "dataset_id"),
    ("purpose", "purpose"),
    ("state", "state"),
    ("step", "step"),
    ("reason", "reason"),
    ("updated", "updated_at"),
]


@click.group()
def command() -> None:
    """Follow and cancel executions: at a site its own, elsewhere those ordered."""


@command.command(epilog=example("housecall execution ls --state running"))
@click.option("--state", type=click.Choice(words(STATES)), help="Only those in this state.")
@click.option("--benchmark", type=int, default=0, help="Only those of this benchmark.")
@output_option(lists=True)
@pass_settings
def ls(settings: Settings, state: str | None, benchmark: int) -> None:
    """List executions, the oldest first."""
    wanted = pb.ExecutionState.ValueType(number(STATES, state or ""))
    if connect.reads_at_site(settings):
        with connect.site(settings) as end:
            local_request = site_pb2.ListLocalExecutionsRequest(state=wanted)
            local = end.call(SiteApiStub(end.channel).ListLocalExecutions, local_request)
        mine = [item for item in local.executions if benchmark in (0, item.benchmark_id)]
        rows = [plain(item) for item in mine]
        show_list(settings, rows, LOCAL_COLUMNS, "no executions at this site")
        return
    request = registry_pb2.ListExecutionsRequest(benchmark_id=benchmark, state=wanted)
    with connect.coordinator(settings) as end:
        found = end.pages(RegistryStub(end.channel).ListExecutions, request, "executions")
    show_list(settings, [plain(item) for item in found], COLUMNS, "no executions were ordered")


@command.command(
    short_help="Show an execution, at its site with steps and logs.",
    epilog=example("housecall execution show 7"),
)
@click.argument("execution_id", metavar="ID", type=int)
@output_option()
@pass_settings
def show(settings: Settings, execution_id: int) -> None:
    """Show an execution; at a site with its steps and the end of their logs, which stay there."""
    if connect.reads_at_site(settings):
        with connect.site(settings) as end:
            local_request = site_pb2.GetLocalExecutionRequest(id=execution_id)
            local = end.call(SiteApiStub(end.channel).GetLocalExecution, local_request)
        show_one(settings, plain(local.execution))
        return
    with connect.coordinator(settings) as end:
        execution = _get(end, execution_id)
    show_one(settings, plain(execution))


@command.command(epilog=example("housecall execution cancel 7 --reason 'wrong weights'"))
@click.argument("execution_id", metavar="ID", type=int)
@click.option("--reason", default="", help="Why; needed where it is a signed statement.")
@output_option()
@pass_settings
def cancel(settings: Settings, execution_id: int, reason: str) -> None:
    """Cancel an execution: its container is stopped."""
    if connect.reads_at_site(settings):
        with connect.site(settings) as end:
            local_request = site_pb2.CancelLocalExecutionRequest(id=execution_id)
            end.call(SiteApiStub(end.channel).CancelLocalExecution, local_request)
        show_one(settings, {"execution": execution_id, "state": "cancelled"})
    else:
        if not reason:
            raise click.UsageError("give --reason: it stays in the ledger")
        with connect.signer(settings) as (end, identity):
            execution = _get(end, execution_id)
            predicate = pb.ExecutionCancelled(execution_ids=[execution_id], reason=reason)
            subjects = {f"execution {execution_id}": execution.origin.envelope_digest}
            response = publish.publish(end, identity, predicate, subjects)
        publish.show_receipt(settings, response, f"cancelled execution {execution_id}")
    settings.next(f"housecall execution show {execution_id}")


def _get(end: connect.End, execution_id: int) -> registry_pb2.Execution:
    request = registry_pb2.GetExecutionRequest(id=execution_id)
    return end.call(RegistryStub(end.channel).GetExecution, request).execution
