"""`housecall association approve|reject|withdraw`: what a person or a site states about it."""

from __future__ import annotations

import click

from cli import connect, drafts, publish
from cli.ask import confirm
from cli.command import example, filled, output_option, yes_option
from cli.commands.association import get
from cli.messages import plain, word
from cli.output import clean, short, tree
from cli.settings import Settings, pass_settings
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb
from housecall.v1.site_pb2_grpc import SiteApiStub

reason_option = click.option(
    "--reason", required=True, callback=filled, help="Why; it stays in the history."
)


@click.command(epilog=example("housecall association approve 1 --reason 'checked the metrics'"))
@click.argument("association_id", metavar="ID", type=int)
@reason_option
@output_option()
@pass_settings
def approve(settings: Settings, association_id: int, reason: str) -> None:
    """Vote yes, as a member of the benchmark's committee."""
    _decide(settings, association_id, pb.DECISION_APPROVE, reason)


@click.command(epilog=example("housecall association reject 1 --reason 'too few cases'"))
@click.argument("association_id", metavar="ID", type=int)
@reason_option
@output_option()
@pass_settings
def reject(settings: Settings, association_id: int, reason: str) -> None:
    """Vote no, as a member of the benchmark's committee."""
    _decide(settings, association_id, pb.DECISION_REJECT, reason)


@click.command(epilog=example("housecall association withdraw 1 --reason 'data was recalled'"))
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
            association = get(end, association_id)
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
        association = get(end, association_id)
        settings.say(_line(association))
        for line in tree(plain(association)["test_metrics"] or {}, 1):
            settings.say(line)
        predicate = pb.AssociationDecided(
            association_id=association_id, decision=decision, reason=reason
        )
        response = publish.publish(end, identity, predicate, _subjects(association))
        now = get(end, association_id)
    verb = "approve" if decision == pb.DECISION_APPROVE else "reject"
    state = word(registry_pb2.AssociationState.DESCRIPTOR, now.state)
    text = f"voted to {verb} association {association_id}, which is {state} now"
    publish.show_receipt(settings, response, text)
    settings.next(f"housecall association show {association_id}")


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
