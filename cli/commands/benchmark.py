"""`housecall benchmark`: what is judged, by what rules, on whose data."""

from __future__ import annotations

import click

from cli import connect
from cli.command import LazyGroup, example, output_option
from cli.messages import plain
from cli.output import Column, show_list, show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2
from housecall.v1.registry_pb2_grpc import RegistryStub

COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "statement.name"),
    ("preparation", "statement.preparation.id"),
    ("reference model", "statement.reference_model.id"),
    ("evaluator", "statement.evaluator.id"),
    ("committee", "statement.committee"),
    ("votes", "statement.votes_needed"),
    ("reference dataset", "policy.reference_dataset_id"),
]


@click.group(
    cls=LazyGroup,
    table={
        "create": (
            "cli.commands.benchmark_create:create",
            "Create a benchmark.",
        ),
        "policy": (
            "cli.commands.benchmark_create:policy",
            "Change a benchmark's policy.",
        ),
        "run": (
            "cli.commands.benchmark_run:run",
            "Run a benchmark's models here, or order them everywhere.",
        ),
        "watch": (
            "cli.commands.benchmark_watch:watch",
            "Show what every site does, as it changes.",
        ),
    },
)
def command() -> None:
    """Create, run and watch benchmarks."""


@command.command(epilog=example("housecall benchmark ls", "housecall benchmark ls --output csv"))
@output_option(lists=True)
@pass_settings
def ls(settings: Settings) -> None:
    """List all benchmarks."""
    with connect.reader(settings) as end:
        method = RegistryStub(end.channel).ListBenchmarks
        found = end.pages(method, registry_pb2.ListBenchmarksRequest(), "benchmarks")
    rows = [plain(benchmark) for benchmark in found]
    show_list(settings, rows, COLUMNS, "no benchmarks yet: housecall benchmark create")


@command.command(
    short_help="Show a benchmark with its policy and approved models.",
    epilog=example("housecall benchmark show 1"),
)
@click.argument("benchmark_id", metavar="ID", type=int)
@output_option()
@pass_settings
def show(settings: Settings, benchmark_id: int) -> None:
    """Show a benchmark: its statement, its policy, its approved models."""
    request = registry_pb2.GetBenchmarkRequest(id=benchmark_id)
    with connect.reader(settings) as end:
        found = end.call(RegistryStub(end.channel).GetBenchmark, request)
    show_one(settings, plain(found))
