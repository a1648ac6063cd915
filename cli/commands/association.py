"""`housecall association`: who takes part in which benchmark, and who said so."""

from __future__ import annotations

import click

from cli import connect, drafts, publish
from cli.ask import confirm
from cli.command import example, output_option, yes_option
from cli.messages import number, plain, words
from cli.output import Column, clean, short, show_list, show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.registry_pb2_grpc import RegistryStub
from housecall.v1.site_pb2_grpc import SiteApiStub

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
reason_option = click.option("--reason", required=True, help="Why; it stays in the history.")


@click.group()
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
            dataset = drafts.dataset_id(end, dataset)
        request = registry_pb2.ListAssociationsRequest(
            benchmark_id=benchmark,
            dataset_id=dataset,
            model_id=model,
            state=registry_pb2.AssociationState.ValueType(number(STATES, state or "")),
        )
        found = end.pages(RegistryStub(end.channel).ListAssociations, request, "associations")
    show_list(settings, [plain(item) for item in found], COLUMNS, "no such associations")


@command.command(epilog=example("housecall association show 1"))
@click.argument("association_id", metavar="ID", type=int)
@output_option()
@pass_settings
def show(settings: Settings, association_id: int) -> None:
    """Show an association with its test's metrics and its whole history."""
    with connect.reader(settings) as end:
        association = _get(end, association_id)
    show_one(settings, plain(association))


@command.command(epilog=example("housecall association approve 1 --reason 'checked the metrics'"))
@click.argument("association_id", metavar="ID", type=int)
@reason_option
@output_option()
@pass_settings
def approve(settings: Settings, association_id: int, reason: str) -> None:
    """Vote yes, as a member of the benchmark's committee."""
    _decide(settings, association_id, pb.DECISION_APPROVE, reason)


@command.command(epilog=example("housecall association reject 1 --reason 'too few cases'"))
@click.argument("association_id", metavar="ID", type=int)
@reason_option
@output_option()
@pass_settings
def reject(settings: Settings, association_id: int, reason: str) -> None:
    """Vote no, as a member of the benchmark's committee."""
    _decide(settings, association_id, pb.DECISION_REJECT, reason)


@command.command(epilog=example("housecall association withdraw 1 --reason 'data was recalled'"))
@click.argument("association_id", metavar="ID", type=int)
@reason_option
@yes_option
@output_option()
@pass_settings
def withdraw(settings: Settings, association_id: int, reason: str, yes: bool) -> None:
    """Take a dataset (at its site) or a model (by its owner) out of a benchmark."""
    question = f"Withdraw association {association_id}?"
    if connect.reads_at_site(settings):
        request = site_pb2.DraftWithdrawalRequest(association_id=association_id, reason=reason)
        with connect.site(settings) as end:
            events = end.stream(SiteApiStub(end.channel).DraftWithdrawal, request)
            sent = drafts.release(settings, end, events, question=question, yes=yes)
        drafts.show_sent(settings, sent)
    else:
        with connect.signer(settings) as (end, identity):
            association = _get(end, association_id)
            settings.say(_line(association))
            confirm(question, yes=yes)
            predicate = pb.AssociationWithdrawn(association_id=association_id, reason=reason)
            subjects = _subjects(association)
            response = publish.publish(end, identity, predicate, subjects)
        publish.show_receipt(settings, response, f"withdrew association {association_id}")
    settings.next(f"housecall association show {association_id}")


def _decide(
    settings: Settings, association_id: int, decision: pb.Decision.ValueType, reason: str
) -> None:
    with connect.signer(settings) as (end, identity):
        association = _get(end, association_id)
        settings.say(_line(association))
        predicate = pb.AssociationDecided(
            association_id=association_id, decision=decision, reason=reason
        )
        response = publish.publish(end, identity, predicate, _subjects(association))
    verb = "approved" if decision == pb.DECISION_APPROVE else "rejected"
    publish.show_receipt(settings, response, f"{verb} association {association_id}")
    settings.next(f"housecall association show {association_id}")


def _get(end: connect.End, association_id: int) -> registry_pb2.Association:
    request = registry_pb2.GetAssociationRequest(id=association_id)
    return end.call(RegistryStub(end.channel).GetAssociation, request).association


def _subjects(association: registry_pb2.Association) -> dict[str, str]:
    """What is decided on is the request, as it was signed."""
    return {f"association {association.id}": association.origin.envelope_digest}


def _line(association: registry_pb2.Association) -> str:
    target = association.dataset_id or association.model_id
    kind = "dataset" if association.dataset_id else "model"
    return clean(
        f"association {association.id}: {kind} {target} of {short(association.origin.owner)} "
        f"in benchmark {association.benchmark_id}, request {association.origin.envelope_digest}"
    )
