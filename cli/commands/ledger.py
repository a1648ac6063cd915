"""`housecall ledger`: what everyone agreed on, and that nobody rewrote it."""

from __future__ import annotations

import json

import click

from cli import connect, witness
from cli.command import example, output_option
from cli.output import print_json, show_one
from cli.settings import Settings, pass_settings
from housecall.v1 import ledger_pb2
from housecall.v1.ledger_pb2_grpc import LedgerStub


@click.group()
def command() -> None:
    """Checkpoints, entries and their verification."""


@command.command(epilog=example("housecall ledger checkpoint"))
@output_option()
@pass_settings
def checkpoint(settings: Settings) -> None:
    """Print the newest checkpoint, checked against the pinned key."""
    from housecall.verify import check_checkpoint

    with connect.reader(settings) as end:
        key = witness.pinned_key(end)
        method = LedgerStub(end.channel).GetCheckpoint
        found = end.call(method, ledger_pb2.GetCheckpointRequest())
    checked = check_checkpoint(found.checkpoint, key)
    if settings.output == "json":
        print_json(
            {
                "origin": checked.origin,
                "tree_size": checked.size,
                "root": checked.root.hex(),
                "checkpoint": found.checkpoint,
                "verifier_key": key,
            }
        )
    else:
        click.echo(found.checkpoint, nl=False)
        settings.note(f"signed by the pinned key {key}")


@command.command(epilog=example("housecall ledger entry 0"))
@click.argument("index", type=click.IntRange(0))
@output_option()
@pass_settings
def entry(settings: Settings, index: int) -> None:
    """Print an entry: who stated what, with its proofs checked."""
    with connect.reader(settings) as end:
        key = witness.pinned_key(end)
        request = ledger_pb2.GetBundleRequest(ledger_index=index)
        bundle = end.call(LedgerStub(end.channel).GetBundle, request).bundle
    checked = witness.check_bundle(bundle, key)
    show_one(
        settings,
        {
            "ledger_index": index,
            "kind": checked.statement.kind,
            "signer": checked.signer,
            "envelope_digest": checked.statement.envelope_digest,
            "tree_size": checked.tree_size,
            "statement": json.loads(checked.statement.payload),
        },
    )


@command.command(
    short_help="Verify that nobody rewrote the ledger.",
    epilog=example("housecall ledger verify", "housecall ledger verify --entries 100"),
)
@click.option("--entries", type=click.IntRange(1), help="Only the newest so many, each by proof.")
@output_option()
@pass_settings
def verify(settings: Settings, entries: int | None) -> None:
    """Verify the ledger: it continues the one seen last, and its entries give its root.

    Every entry is downloaded and hashed again; those that are not yours to see are withheld and
    count by their hashes. With --entries the newest ones are checked each by its proof instead.
    The checkpoint seen is kept for the next time.
    """
    with connect.reader(settings) as end:
        key = witness.pinned_key(end)
        seen = witness.remembered(settings, key)
        text, checked = witness.newest(end, key, seen)
        if entries is None:
            withheld = witness.rehash(end, checked)
        else:
            withheld = witness.check_newest(end, key, checked, entries)
        witness.remember(settings, key, text)
    show_one(
        settings,
        {
            "verified": True,
            "origin": checked.origin,
            "tree_size": checked.size,
            "root": checked.root.hex(),
            "entries_checked": min(entries or checked.size, checked.size) - withheld,
            "entries_withheld": withheld,
            "continues_tree_of": witness.size_of(seen),
        },
    )
