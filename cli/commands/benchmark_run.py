"""`housecall benchmark run`: the models that are missing, here or, by order, everywhere."""

from __future__ import annotations

from pathlib import Path

import click

from cli import connect, drafts
from cli.command import example, output_option, yes_option
from cli.commands import benchmark_orders, benchmark_rows
from cli.exit_codes import MODELS_FAILED
from cli.settings import Settings, pass_settings
from housecall.errors import Kind, Refusal
from housecall.v1 import site_pb2
from housecall.v1.site_pb2_grpc import SiteApiStub


@click.command(
    epilog=example(
        "housecall benchmark run 1 --dataset 1",
        "housecall benchmark run 1 --dataset 1 --model 4 --rerun",
        "housecall benchmark run 1 --all-sites",
    )
)
@click.argument("benchmark_id", metavar="ID", type=int)
@click.option("--dataset", help="This site's dataset to run the models on.")
@click.option("--all-sites", is_flag=True, help="Order it from every associated site (committee).")
@click.option("--model", "models", type=int, multiple=True, help="Only this model; repeatable.")
@click.option(
    "--models-from-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Only the models whose numbers this file lists.",
)
@click.option("--rerun", is_flag=True, help="Run again what has a result.")
@click.option("--ignore-model-errors", is_flag=True, help="Evaluate what a failed model left.")
@click.option("--dry-run", is_flag=True, help="Say what would run, pull and need; run nothing.")
@yes_option
@output_option(lists=True)
@pass_settings
@click.pass_context
def run(
    ctx: click.Context,
    settings: Settings,
    benchmark_id: int,
    dataset: str | None,
    all_sites: bool,
    models: tuple[int, ...],
    models_from_file: Path | None,
    rerun: bool,
    ignore_model_errors: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Run a benchmark's models on a dataset of this site.

    What has a result comes from cache; a model that fails does not stop the others. Exit code 10
    says that some failed. With --all-sites the committee orders what is missing at every site.
    """
    if all_sites == bool(dataset):
        raise click.UsageError("give exactly one of --dataset and --all-sites")
    wanted = [*models, *_listed(models_from_file)]
    if all_sites:
        if ignore_model_errors:
            raise click.UsageError("--ignore-model-errors is the site's choice: leave it out")
        benchmark_orders.order_everywhere(
            settings, benchmark_id, wanted, rerun=rerun, dry_run=dry_run, yes=yes
        )
        return
    settings.on_interrupt = "the models go on at the site; run the same command again to join them"
    with connect.site(settings) as end:
        selection = site_pb2.RunSelection(
            benchmark_id=benchmark_id,
            dataset_id=drafts.dataset_id(end, str(dataset)),
            model_ids=wanted,
            rerun=rerun,
            ignore_model_errors=ignore_model_errors,
        )
        stub = SiteApiStub(end.channel)
        if dry_run:
            plan = end.call(stub.PlanRun, site_pb2.PlanRunRequest(selection=selection))
            benchmark_rows.show_plan(settings, plan)
            return
        request = site_pb2.RunBenchmarkRequest(selection=selection)
        rows = benchmark_rows.follow(
            end.stream(stub.RunBenchmark, request, look="housecall execution ls")
        )
    counts = benchmark_rows.count(rows)
    benchmark_rows.show_rows(settings, rows, counts)
    failed = [row["local_execution_id"] for row in rows if not row["result"]]
    settings.next(*[f"housecall execution show {number}" for number in failed[:1] if number])
    results = [row["result"] for row in rows if row["result"]]
    settings.next(*[f"housecall result show {name}" for name in results[:1]])
    ctx.exit(MODELS_FAILED if counts["failed"] else 0)


def _listed(path: Path | None) -> list[int]:
    """Numbers in a file, by white space or commas; a `#` begins a comment."""
    if path is None:
        return []
    lines = (line.split("#")[0].replace(",", " ") for line in path.read_text().splitlines())
    words = [word for line in lines for word in line.split()]
    for word in words:
        if not word.isdecimal():
            raise Refusal(
                Kind.INVALID, "USAGE", f"{path}: expected model numbers, got {word!r}; correct it"
            )
    if not words:
        raise Refusal(
            Kind.INVALID,
            "USAGE",
            f"{path}: expected at least one model number, got none; write one a line, or leave out "
            "--models-from-file to run every model",
        )
    return [int(word) for word in words]
