"""`housecall dataset`: a site's data, from its registration to a place in a benchmark."""

from __future__ import annotations

from pathlib import Path

import click

from cli import connect, drafts
from cli.command import LazyGroup, example, output_option, yes_option
from cli.messages import plain
from cli.output import Abridged, Column, brief, show_list, show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1.registry_pb2_grpc import RegistryStub
from housecall.v1.site_pb2_grpc import SiteApiStub

LOCAL_COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "name"),
    ("state", "state"),
    ("accepted", "accepted"),
    ("preparation", "preparation.id"),
    ("raw", Abridged("raw_fingerprint", brief)),
    ("prepared", Abridged("prepared_fingerprint", brief)),
    ("problem", "problem"),
]
COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "statement.name"),
    ("location", "statement.location"),
    ("state", "state"),
    ("site", "origin.owner"),
    ("preparation", "statement.preparation.id"),
    ("prepared", Abridged("prepared_fingerprint", brief)),
    ("preparing", "preparing.state"),
]


@click.group(
    cls=LazyGroup,
    table={
        "prepare": (
            "cli.commands.dataset_work:prepare",
            "Run the preparation: prepare, sanity check, statistics.",
        ),
        "check": (
            "cli.commands.dataset_work:check",
            "Verify that the data is what was fingerprinted.",
        ),
        "set-operational": (
            "cli.commands.dataset_work:set_operational",
            "Declare the prepared data final.",
        ),
        "associate": (
            "cli.commands.dataset_work:associate",
            "Ask to take part in a benchmark.",
        ),
    },
)
def command() -> None:
    """Register, prepare and offer a site's data. The data stays where it is."""


@command.command(
    epilog=example(
        "housecall dataset register --name tissue --description 'needle aspirates' \\",
        "  --location 'North Hospital' --data-path /data/images --labels-path /data/labels \\",
        "  --benchmark 1",
    )
)
@click.option("--name", required=True, help="A name to recognise it by.")
@click.option("--description", required=True, help="What the data is, for others to read.")
@click.option("--location", required=True, help="Where it comes from, as a hospital's name.")
@click.option("--data-path", required=True, type=click.Path(), help="Folder of the raw data.")
@click.option("--labels-path", required=True, type=click.Path(), help="Folder of the raw labels.")
@click.option("--metadata-path", type=click.Path(), help="Folder of prepared metadata.")
@click.option("--benchmark", type=int, help="Benchmark whose preparation is used.")
@click.option("--container", type=int, help="Preparation container, in place of --benchmark.")
@click.option("--already-prepared", is_flag=True, help="The folders hold prepared data.")
@yes_option
@output_option()
@pass_settings
def register(
    settings: Settings,
    name: str,
    description: str,
    location: str,
    data_path: str,
    labels_path: str,
    metadata_path: str | None,
    benchmark: int | None,
    container: int | None,
    already_prepared: bool,
    yes: bool,
) -> None:
    """Fingerprint data and register its description.

    The data is hashed at the site; what would leave is shown before it is signed and sent.
    """
    if (benchmark is None) == (container is None):
        raise click.UsageError("give exactly one of --benchmark and --container")
    if metadata_path and not already_prepared:
        raise click.UsageError(
            "--metadata-path is for prepared data: the preparation writes the metadata itself; "
            "leave it out, or give --already-prepared, too"
        )
    request = site_pb2.DraftDatasetRequest(
        name=name,
        description=description,
        location=location,
        data_path=_absolute(data_path),
        labels_path=_absolute(labels_path),
        metadata_path=_absolute(metadata_path),
        benchmark_id=benchmark or 0,
        container_id=container or 0,
        already_prepared=already_prepared,
    )
    with connect.site(settings) as end:
        events = end.stream(SiteApiStub(end.channel).DraftDataset, request)
        sent = drafts.release(settings, end, events, question="Register this dataset?", yes=yes)
    drafts.show_sent(settings, sent)
    if sent:
        number = _number(sent[0].id)
        step = "set-operational" if already_prepared else "prepare"
        settings.next(f"housecall dataset {step} {number}")


@command.command(
    short_help="List this site's datasets, or all registered ones.",
    epilog=example("housecall dataset ls --mine", "housecall dataset ls -o csv"),
)
@click.option("--mine", is_flag=True, help="The datasets of this site, as its agent knows them.")
@click.option("--benchmark", type=int, default=0, help="Only those of this benchmark.")
@output_option(lists=True)
@pass_settings
def ls(settings: Settings, mine: bool, benchmark: int) -> None:
    """List datasets: this site's with --mine, else all registered ones."""
    if mine and benchmark:
        raise click.UsageError("--benchmark lists registered datasets: leave out --mine")
    if mine:
        with connect.site(settings) as end:
            stub = SiteApiStub(end.channel)
            local = end.call(stub.ListLocalDatasets, site_pb2.ListLocalDatasetsRequest())
        rows = [plain(dataset) for dataset in local.datasets]
        show_list(settings, rows, LOCAL_COLUMNS, "no datasets yet: housecall dataset register")
        return
    request = registry_pb2.ListDatasetsRequest(benchmark_id=benchmark)
    with connect.reader(settings) as end:
        found = end.pages(RegistryStub(end.channel).ListDatasets, request, "datasets")
    show_list(settings, [plain(dataset) for dataset in found], COLUMNS, "no datasets registered")


@command.command(
    short_help="Show a dataset.",
    epilog=example("housecall dataset show 1", "housecall dataset show north/1"),
)
@click.argument("dataset_id", metavar="ID")
@output_option()
@pass_settings
def show(settings: Settings, dataset_id: str) -> None:
    """Show a dataset: this site's own in full (`1`), another's as registered (`north/1`)."""
    if "/" in dataset_id:
        request = registry_pb2.GetDatasetRequest(id=dataset_id)
        with connect.reader(settings) as end:
            found = end.call(RegistryStub(end.channel).GetDataset, request)
        show_one(settings, plain(found.dataset))
        return
    with connect.site(settings) as end:
        stub = SiteApiStub(end.channel)
        local_request = site_pb2.GetLocalDatasetRequest(id=drafts.dataset_id(end, dataset_id))
        local = end.call(stub.GetLocalDataset, local_request)
    show_one(settings, plain(local.dataset))


def _absolute(path: str | None) -> str:
    """The agent has a working folder of its own. Links are left for it to judge."""
    return str(Path(path).expanduser().absolute()) if path else ""


def _number(dataset_id: str) -> str:
    return dataset_id.rsplit("/", 1)[-1]
