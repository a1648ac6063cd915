"""`housecall result export|verify`: results as files that anyone can check offline."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cli import bundles, connect
from cli.command import example, output_option
from cli.output import clean, print_json, short, tree
from cli.settings import Settings, pass_settings
from housecall.errors import Kind, Refusal
from housecall.v1 import ledger_pb2, registry_pb2, site_pb2
from housecall.v1.ledger_pb2_grpc import LedgerStub
from housecall.v1.registry_pb2_grpc import RegistryStub
from housecall.v1.site_pb2_grpc import SiteApiStub


@click.command(epilog=example("housecall result export b1m4d1 --file b1m4d1.json"))
@click.argument("name", metavar="NAME")
@click.option(
    "--file", "path", type=click.Path(path_type=Path), required=True, help="Where to write it."
)
@output_option()
@pass_settings
def export(settings: Settings, name: str, path: Path) -> None:
    """Write a submitted result with its proofs to a file, for `result verify`."""
    bundle = _global(settings, name) if "/" in name else _local(settings, name)
    bundles.write(bundle, path)
    if settings.output == "json":
        print_json({"name": name, "file": str(path)})
    else:
        click.echo(f"wrote {name} to {path}")
    settings.next(f"housecall result verify {path}")


@click.command(
    epilog=example("housecall result verify b1m4d1.json --ledger-key demo+1a2b3c4d+AbC...")
)
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.option("--ledger-key", metavar="KEY|FILE", help="The ledger's key; default: the pinned one.")
@output_option()
@pass_settings
def verify(settings: Settings, path: Path, ledger_key: str | None) -> None:
    """Check a result file offline: no coordinator, no identity, only the ledger's key."""
    key = bundles.ledger_key(settings, ledger_key)
    verified = bundles.verify(bundles.read(path), key)
    predicate = json.loads(verified.statement.payload)["predicate"]
    if settings.output == "json":
        print_json(
            {
                "verified": True,
                "signer": verified.signer,
                "ledger_index": verified.ledger_index,
                "envelope_digest": verified.statement.envelope_digest,
                "origin": verified.checkpoint.origin,
                "tree_size": verified.checkpoint.size,
                "statement": predicate,
            }
        )
        return
    for number, step in enumerate(bundles.STEPS, 1):
        click.echo(f"{number}. {step}: yes")
    click.echo(
        clean(
            f"signed by {short(verified.signer)} ({verified.signer}), entry "
            f"{verified.ledger_index} of {verified.checkpoint.origin}"
        )
    )
    facts = ("benchmarkId", "datasetId", "model", "partial", "metrics")
    for line in tree({name: predicate.get(name) for name in facts}):
        click.echo(line)


def _local(settings: Settings, name: str) -> ledger_pb2.Bundle:
    request = site_pb2.GetLocalResultRequest(name=name)
    with connect.site(settings) as end:
        found = end.call(SiteApiStub(end.channel).GetLocalResult, request)
    if found.result.submitted and not found.HasField("bundle"):
        raise Refusal(
            Kind.UNAVAILABLE,
            "PROOFS_UNAVAILABLE",
            f"result {name} is in the ledger, but its proofs are with the coordinator, whom the "
            "agent cannot reach: try again, and see `housecall site status`",
        )
    if not found.HasField("bundle"):
        raise Refusal(
            Kind.NOT_READY,
            "RESULT_NOT_SUBMITTED",
            f"result {name} has no receipt yet: run `housecall result submit {name}` first",
        )
    return found.bundle


def _global(settings: Settings, name: str) -> ledger_pb2.Bundle:
    with connect.reader(settings) as end:
        request = registry_pb2.GetResultRequest(name=name)
        result = end.call(RegistryStub(end.channel).GetResult, request).result
        wanted = ledger_pb2.GetBundleRequest(envelope_digest=result.origin.envelope_digest)
        return end.call(LedgerStub(end.channel).GetBundle, wanted).bundle
