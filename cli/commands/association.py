"""`housecall association`: who takes part in which benchmark, and who said so."""

from __future__ import annotations

import click

from cli import connect
from cli.command import LazyGroup, example, output_option
from cli.messages import number, plain, words
from cli.output import Column, show_list, show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2
from housecall.v1.registry_pb2_grpc import RegistryStub

STATES = registry_pb2.AssociationState.DESCRIPTOR
COLUMNS: list[Column] = [
    ("id", "id"),
    ("benchmark", "benchmark_id"),
    ("dataset", "dataset_id"),
    ("model", lambda row: row["model_id"] or None),
    ("state", "state"),
    ("approvals", lambda row: f"{row['approvals']} of {row['votes_needed']}"),
    ("by", "origin.owner"),
    ("since", lambda row: row["history"][-1]["at"] if row["history"] else None),
]


@click.group(
    cls=LazyGroup,
    table={
        "approve": ("cli.commands.association_decide:approve", "Vote yes, as a member."),
        "reject": ("cli.commands.association_decide:reject", "Vote no, as a member."),
        "withdraw": (
            "cli.commands.association_decide:withdraw",
            "Take a dataset or a model out of a benchmark.",
        ),
    },
)
def command() -> None:
    """Who takes part in which benchmark: requests, votes and withdrawals."""


@command.command(epilog=example("housecall association ls --benchmark 1 --state requested"))
@click.option("--benchmark", type=int, default=0, help="Only those of this benchmark.")
@click.option("--dataset", default="", metavar="ID", help="Only those of this dataset (north/1).")
@click.option("--model", type=int, default=0, help="Only those of this model.")
@click.option("--state", type=click.Choice(words(STATES)), help="Only those in this state.")
@output_option(lists=True)
@pass_settings
def ls(settings: Settings, benchmark: int, dataset: str, model: int, state: str | None) -> None:
    """List associations, the oldest first."""
    with connect.reader(settings) as end:
        if dataset and end.at_site:
            from cli.drafts import dataset_id

            dataset = dataset_id(end, dataset)
        request = registry_pb2.ListAssociationsRequest(
            benchmark_id=benchmark,
            dataset_id=dataset,
            model_id=model,
            state=registry_pb2.AssociationState.ValueType(number(STATES, state or "")),
        )
        found = end.pages(RegistryStub(end.channel).ListAssociations, request, "associations")
    show_list(settings, [plain(item) for item in found], COLUMNS, "no such associations")


@command.command(
    short_help="Show an association with its test and its history.",
    epilog=example("housecall association show 1"),
)
@click.argument("association_id", metavar="ID", type=int)
@output_option()
@pass_settings
def show(settings: Settings, association_id: int) -> None:
    """Show an association with its test's metrics and its whole history."""
    with connect.reader(settings) as end:
        association = get(end, association_id)
    show_one(settings, plain(association))


def get(end: connect.End, association_id: int) -> registry_pb2.Association:
    request = registry_pb2.GetAssociationRequest(id=association_id)
    return end.call(RegistryStub(end.channel).GetAssociation, request).association
