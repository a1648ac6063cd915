"""`housecall model`: model containers offered to benchmarks."""

from __future__ import annotations

import click

from cli import connect, publish
from cli.command import LazyGroup, example, output_option
from cli.messages import plain
from cli.output import Abridged, Column, brief, show_list, show_one
from cli.pins import container_pin
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub

COLUMNS: list[Column] = [
    ("id", "id"),
    ("name", "statement.name"),
    ("owner", "origin.owner"),
    ("container", "statement.container.id"),
    ("digest", Abridged("statement.container.digest", brief)),
]


@click.group(
    cls=LazyGroup,
    table={
        "associate": (
            "cli.commands.model_associate:associate",
            "Ask for a model's place in a benchmark.",
        ),
    },
)
def command() -> None:
    """Register models and offer them to benchmarks."""


@command.command(epilog=example("housecall model register --name forest --container 4"))
@click.option("--name", required=True, help="A name to recognise it by.")
@click.option("--description", default="", help="What it is, for others to read.")
@click.option("--container", type=int, required=True, help="Its model container.")
@output_option()
@pass_settings
def register(settings: Settings, name: str, description: str, container: int) -> None:
    """Register a model container of yours as a model."""
    with connect.signer(settings) as (end, identity):
        pin = container_pin(end, container)
        predicate = pb.ModelRegistered(name=name, description=description, container=pin)
        subjects = {f"container {container}": pin.digest}
        response = publish.publish(end, identity, predicate, subjects)
    publish.show_receipt(settings, response, f"registered model {{id}} ({name})")
    settings.next(f"housecall model associate {response.id} --benchmark ID")


@command.command(epilog=example("housecall model ls"))
@output_option(lists=True)
@pass_settings
def ls(settings: Settings) -> None:
    """List all models."""
    with connect.reader(settings) as end:
        method = RegistryStub(end.channel).ListModels
        found = end.pages(method, registry_pb2.ListModelsRequest(), "models")
    show_list(settings, [plain(item) for item in found], COLUMNS, "no models registered")


@command.command(epilog=example("housecall model show 1"))
@click.argument("model_id", metavar="ID", type=int)
@output_option()
@pass_settings
def show(settings: Settings, model_id: int) -> None:
    """Show a model."""
    with connect.reader(settings) as end:
        request = registry_pb2.GetModelRequest(id=model_id)
        found = end.call(RegistryStub(end.channel).GetModel, request)
    show_one(settings, plain(found.model))
