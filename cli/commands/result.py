"""`housecall result`: metrics with everything that produced them."""

from __future__ import annotations

import re
from pathlib import Path

import click

from cli import bundles, connect, drafts
from cli.command import LazyGroup, example, output_option, yes_option
from cli.messages import number, plain, words
from cli.output import Abridged, Column, Row, show_list, show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub
from housecall.v1.site_pb2_grpc import SiteApiStub

NAME = re.compile(r"(?:([a-z0-9-]+)/)?b\d+m\d+d\d+")


def _metrics(pairs: Row | None) -> str:
    """The numbers of the first level; of one given with an interval, its `value`."""
    points = {k: v.get("value") if isinstance(v, dict) else v for k, v in (pairs or {}).items()}
    numbers = {k: v for k, v in points.items() if isinstance(v, (int, float))}
    return ", ".join(f"{key} {_short(value)}" for key, value in numbers.items())


def _short(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


LOCAL_COLUMNS: list[Column] = [
    ("name", "name"),
    ("benchmark", "benchmark_id"),
    ("model", "model_id"),
    ("dataset", "dataset_id"),
    ("metrics", Abridged("metrics", _metrics)),
    ("partial", "partial"),
    ("finished", "finished_at"),
    ("submitted", "submitted"),
]
COLUMNS: list[Column] = [
    ("name", "name"),
    ("benchmark", "statement.benchmark_id"),
    ("model", "statement.model.id"),
    ("dataset", "statement.dataset_id"),
    ("purpose", "statement.purpose"),
    ("metrics", Abridged("statement.metrics", _metrics)),
    ("partial", "statement.partial"),
    ("ledger entry", "origin.ledger_index"),
    ("stands", lambda row: not row["superseded_by"]),
]


@click.group(
    cls=LazyGroup,
    table={
        "export": (
            "cli.commands.result_files:export",
            "Write a submitted result with its proofs to a file.",
        ),
        "verify": (
            "cli.commands.result_files:verify",
            "Check a result file offline.",
        ),
    },
)
def command() -> None:
    """Look at, submit, export and verify results."""


@command.command(
    short_help="List results.",
    epilog=example("housecall result ls --benchmark 1", "housecall result ls -o csv"),
)
@click.option("--benchmark", type=int, default=0, help="Only those of this benchmark.")
@click.option("--dataset", default="", metavar="ID", help="Only those of this dataset.")
@click.option("--model", type=int, default=0, help="Only those of this model.")
@click.option(
    "--purpose",
    type=click.Choice(words(pb.Purpose.DESCRIPTOR)),
    help="Only results of the benchmark, or only tests.",
)
@click.option("--all", "everything", is_flag=True, help="Those that were replaced, too.")
@output_option(lists=True)
@pass_settings
def ls(
    settings: Settings,
    benchmark: int,
    dataset: str,
    model: int,
    purpose: str | None,
    everything: bool,
) -> None:
    """List results: at a site its own, submitted or not; elsewhere those that you may see."""
    if connect.reads_at_site(settings):
        rows = _local_rows(settings, benchmark, dataset, model)
        show_list(settings, rows, LOCAL_COLUMNS, "no results yet: housecall benchmark run")
        return
    request = registry_pb2.ListResultsRequest(
        benchmark_id=benchmark,
        dataset_id=dataset,
        model_id=model,
        purpose=pb.Purpose.ValueType(number(pb.Purpose.DESCRIPTOR, purpose or "")),
        include_superseded=everything,
    )
    with connect.coordinator(settings) as end:
        found = end.pages(RegistryStub(end.channel).ListResults, request, "results")
    show_list(settings, [plain(item) for item in found], COLUMNS, "no results to be seen")


@command.command(
    short_help="Show a result: the site's, a submitted one, or a file's.",
    epilog=example("housecall result show b1m4d1", "housecall result show north/b1m4d1"),
)
@click.argument("name", metavar="NAME|FILE")
@output_option()
@pass_settings
def show(settings: Settings, name: str) -> None:
    """Show a result: this site's (`b1m4d1`), a submitted one (`north/b1m4d1`), or a file's."""
    match = NAME.fullmatch(name)
    if match is None and Path(name).exists():
        said = bundles.unverified(Path(name))
        if settings.output == "table":
            said["verified"] = f"not checked; run housecall result verify {name}"
        show_one(settings, said)
        settings.next(f"housecall result verify {name}")
    elif match is not None and match[1]:
        request = registry_pb2.GetResultRequest(name=name)
        with connect.reader(settings) as end:
            found = end.call(RegistryStub(end.channel).GetResult, request)
        show_one(settings, plain(found.result))
        settings.next(f"housecall result export {name} --file FILE")
    else:
        with connect.site(settings) as end:
            local_request = site_pb2.GetLocalResultRequest(name=name)
            local = end.call(SiteApiStub(end.channel).GetLocalResult, local_request).result
        shown = plain(local)
        earlier = not local.submitted and local.ledger_index > 0
        if earlier and settings.output == "table":
            shown["submitted"] = f"an earlier run of it (ledger entry {local.ledger_index})"
        if not local.submitted:
            shown["ledger_index"] = None
        show_one(settings, shown)
        if local.submitted:
            settings.next(f"housecall result export {name} --file FILE")
        else:
            replaces = " --supersede" * earlier
            settings.next(f"housecall result submit {name}{replaces}")


@command.command(
    short_help="Release a result of this site.", epilog=example("housecall result submit b1m4d1")
)
@click.argument("name", metavar="NAME")
@click.option("--supersede", is_flag=True, help="Replace the result that was submitted before.")
@yes_option
@output_option()
@pass_settings
def submit(settings: Settings, name: str, supersede: bool, yes: bool) -> None:
    """Release a result of this site: shown, asked, signed, sent; prints the receipt."""
    request = site_pb2.DraftResultRequest(name=name, supersede=supersede)
    with connect.site(settings) as end:
        events = end.stream(SiteApiStub(end.channel).DraftResult, request)
        question = f"Sign result {name} and send exactly this?"
        sent = drafts.release(settings, end, events, question=question, yes=yes)
    drafts.show_sent(settings, sent)
    settings.next(f"housecall result export {name} --file {name}.json")


def _local_rows(settings: Settings, benchmark: int, dataset: str, model: int) -> list[Row]:
    with connect.site(settings) as end:
        request = site_pb2.ListLocalResultsRequest(
            benchmark_id=benchmark,
            dataset_id=drafts.dataset_id(end, dataset) if dataset else "",
        )
        found = end.call(SiteApiStub(end.channel).ListLocalResults, request)
    return [plain(item) for item in found.results if model in (0, item.model_id)]
