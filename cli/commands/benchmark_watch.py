"""`housecall benchmark watch`: sites by models, live."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import click

from cli import connect
from cli.command import example, output_option
from cli.connect import End
from cli.messages import plain, word
from cli.output import clean, print_json, table
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub

Snapshot = registry_pb2.WatchBenchmarkResponse


@click.command(epilog=example("housecall benchmark watch 1", "housecall benchmark watch 1 --once"))
@click.argument("benchmark_id", metavar="ID", type=int)
@click.option("--once", is_flag=True, help="Print the board as it is now and end.")
@output_option()
@pass_settings
def watch(settings: Settings, benchmark_id: int, once: bool) -> None:
    """Show what every site does for a benchmark, as it changes (committee).

    On a terminal the board is drawn in place; else one table a change, or one JSON line.
    """
    settings.on_interrupt = "stopped watching; the sites go on"
    request = registry_pb2.WatchBenchmarkRequest(benchmark_id=benchmark_id)
    with connect.reader(settings) as end:
        names = _model_names(end, benchmark_id)
        snapshots = end.stream(RegistryStub(end.channel).WatchBenchmark, request)
        if once:
            snapshots = _first(snapshots)
        if settings.output == "json":
            for snapshot in snapshots:
                _print_json_line(snapshot, once=once)
        elif once or not sys.stdout.isatty():
            for snapshot in snapshots:
                click.echo(board(snapshot, names) + "\n")
        else:
            _draw(snapshots, names)


def board(snapshot: Snapshot, names: dict[int, str]) -> str:
    """The table of one snapshot: a line a dataset, a column a model."""
    cells = {(cell.dataset_id, cell.model_id): cell for cell in snapshot.cells}
    connected = {site.name.rsplit("/", 1)[-1]: site.connected for site in snapshot.sites}
    model_ids = sorted(snapshot.model_ids)
    rows = [
        [
            dataset,
            "connected" if connected.get(dataset.split("/")[0]) else "away",
            *[_cell(cells.get((dataset, model))) for model in model_ids],
        ]
        for dataset in snapshot.dataset_ids
    ]
    titles = [clean(f"{model} {names.get(model, '')}".strip()) for model in model_ids]
    return table(rows, ["dataset", "site", *titles])


def _cell(cell: Snapshot.Cell | None) -> str:
    if cell is None:
        return ""
    if cell.submitted:
        return "submitted"
    state = (word(pb.ExecutionState.DESCRIPTOR, cell.state) or "").replace("_", " ")
    detail = cell.step or cell.reason
    return f"{state}: {detail}" if state and detail else state


def _first(snapshots: Iterator[Snapshot]) -> Iterator[Snapshot]:
    for snapshot in snapshots:
        yield snapshot
        break


def _draw(snapshots: Iterable[Snapshot], names: dict[int, str]) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(Text("waiting for the first snapshot"), auto_refresh=False) as live:
        for snapshot in snapshots:
            live.update(Text(board(snapshot, names), no_wrap=True), refresh=True)


def _print_json_line(snapshot: Snapshot, *, once: bool) -> None:
    if once:
        print_json(plain(snapshot))
        return
    import json

    click.echo(json.dumps(plain(snapshot), ensure_ascii=False))


def _model_names(end: End, benchmark_id: int) -> dict[int, str]:
    request = registry_pb2.GetBenchmarkRequest(id=benchmark_id)
    found = end.call(RegistryStub(end.channel).GetBenchmark, request)
    return {model.id: model.statement.name for model in found.models}
