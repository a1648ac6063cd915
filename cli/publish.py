"""What a person states: signed with the own key, appended to the ledger, receipt checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from cli.connect import End
from cli.drafts import tree_size
from cli.output import print_json
from cli.settings import Settings
from housecall.errors import Kind, Refusal
from housecall.v1 import ledger_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from housecall.identity import Identity


def publish(
    end: End, identity: Identity, predicate: Message, subjects: Mapping[str, str]
) -> ledger_pb2.AppendResponse:
    """Sign and append; the receipt's proof is checked against the pinned key. Raises Refusal."""
    from housecall import client, statement

    try:
        return client.append(end.channel, identity, predicate, subjects)
    finally:
        if end.trace:  # the same bytes again: Ed25519 always signs alike
            payload = statement.build(predicate, subjects)
            envelope = statement.sign(payload, identity.signing_key)
            end.trace.stated(statement.digest(envelope))


def show_receipt(settings: Settings, response: ledger_pb2.AppendResponse, what: str) -> None:
    """`what` says what was done, with `{id}` for the id given by the ledger."""
    receipt = response.receipt
    size = tree_size(receipt.checkpoint)
    if settings.output == "json":
        print_json({"id": response.id, "ledger_index": receipt.ledger_index, "tree_size": size})
    else:
        done = what.replace("{id}", response.id)
        click.echo(f"{done}: ledger entry {receipt.ledger_index} in a tree of {size}")


def person_id(identity: Identity, name: str) -> str:
    """The SPIFFE id of a person of the same trust domain; a full id is taken as it is."""
    return participant_id(identity, "person", name)


def participant_id(identity: Identity, kind: str, name: str) -> str:
    from housecall.identity import spiffe_id, split_id

    if name.startswith("spiffe://"):
        split_id(name)
        return name
    return spiffe_id(split_id(identity.name)[0], kind, name)


def any_participant_id(identity: Identity, name: str) -> str:
    """`site/north`, `person/ada` or a full SPIFFE id: a bare name could be either."""
    kind, slash, rest = name.partition("/")
    if name.startswith("spiffe://"):
        return participant_id(identity, "", name)
    if not slash or kind not in ("site", "person"):
        raise Refusal(
            Kind.INVALID,
            "NAME_INVALID",
            f"name {name!r}: expected site/NAME or person/NAME, or a whole SPIFFE id",
        )
    return participant_id(identity, kind, rest)
