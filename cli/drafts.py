"""What leaves a site: drafted by the agent, shown here exactly, released by its digest.

Work goes on at the agent when this process ends; calling the command again joins it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from cli import progress
from cli.ask import confirm
from cli.connect import End
from cli.output import clean, print_json, short, tree
from cli.settings import Settings
from housecall.errors import Kind, Refusal
from housecall.v1 import site_pb2
from housecall.v1.site_pb2_grpc import SiteApiStub

RELEASE_SECONDS = 60.0
Ending = site_pb2.WorkEvent.Draft | site_pb2.WorkEvent.Done


def follow(events: Iterable[site_pb2.WorkEvent]) -> Ending:
    """Show work until it ends, with a draft or done."""
    ending: Ending | None = None
    with progress.view() as view:
        for event in events:
            kind = event.WhichOneof("event")
            if kind == "draft":
                ending = event.draft
            elif kind == "done":
                ending = event.done
            else:
                view.show(event)
    if ending is None:
        raise Refusal(
            Kind.UNAVAILABLE,
            "WORK_CUT_OFF",
            "the agent ended the stream before the work was done: run the command again to join it",
        )
    return ending


def release(
    settings: Settings,
    end: End,
    events: Iterable[site_pb2.WorkEvent],
    *,
    question: str,
    yes: bool,
) -> list[site_pb2.ReleaseResponse.Sent]:
    """Follow the work to its draft, show that, ask, and release exactly it. Empty when there is
    nothing to send."""
    ending = follow(events)
    if isinstance(ending, site_pb2.WorkEvent.Done):
        settings.say(clean(ending.text))
        return []
    show_statements(settings, site_name(end), ending.statements, ending.digest)
    confirm(question, yes=yes, otherwise="nothing has left the site")
    stub = SiteApiStub(end.channel)
    request = site_pb2.ReleaseRequest(digest=ending.digest)
    return list(end.call(stub.Release, request, seconds=RELEASE_SECONDS).sent)


def show_statements(
    settings: Settings, site: str, statements: Sequence[bytes], digest: str
) -> None:
    """The bytes to be signed, as they are."""
    settings.say(f"This, and nothing else, would leave {site}:")
    for statement in statements:
        settings.say("")
        settings.say(clean(statement.decode("utf-8", "backslashreplace")))
    settings.say(f"\ndigest of what would leave: {digest}")
    for statement in statements:
        for line in _metrics(statement):
            settings.say(line)


def _metrics(statement: bytes) -> list[str]:
    """The metrics that a statement has, to be read at a glance; its text stands above."""
    try:
        found = json.loads(statement)["predicate"]["metrics"]
    except (ValueError, KeyError, TypeError):
        return []
    return ["metrics:", *tree(found, 1)] if isinstance(found, dict) and found else []


def show_sent(settings: Settings, sent: Sequence[site_pb2.ReleaseResponse.Sent]) -> None:
    """The receipts of what was released."""
    rows = [sent_row(item) for item in sent]
    if settings.output == "json":
        print_json({"sent": rows})
        return
    for row in rows:
        what = f"{row['kind']} {row['id']}".strip()
        if row["ledger_index"] is None:
            click.echo(f"{what}: signed and kept in the outbox, sent when the coordinator is back")
        else:
            click.echo(
                f"{what}: ledger entry {row['ledger_index']} in a tree of {row['tree_size']}"
            )
        click.echo(f"  envelope {row['envelope_digest']}")


def sent_row(sent: site_pb2.ReleaseResponse.Sent) -> dict[str, Any]:
    """`ledger_index` and `tree_size` are None while it waits in the outbox."""
    known = sent.HasField("receipt")
    return {
        "kind": sent.kind,
        "id": sent.id,
        "envelope_digest": sent.envelope_digest,
        "ledger_index": sent.receipt.ledger_index if known else None,
        "tree_size": tree_size(sent.receipt.checkpoint) if known else None,
    }


def tree_size(checkpoint: str) -> int | None:
    """The size that a checkpoint's text states; its signature is checked elsewhere."""
    lines = checkpoint.split("\n")
    return int(lines[1]) if len(lines) > 1 and lines[1].isdecimal() else None


def site_name(end: End) -> str:
    """The short name of the site whose agent answers."""
    status = end.call(SiteApiStub(end.channel).GetStatus, site_pb2.GetStatusRequest())
    return short(status.site)


def dataset_id(end: End, text: str) -> str:
    """At a site `1` means `<this site>/1`."""
    return text if "/" in text else f"{site_name(end)}/{text}"
