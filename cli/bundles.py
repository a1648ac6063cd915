"""Result files: a statement with receipt and proofs as JSON, checked with nothing but the file
and the ledger's key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.settings import Settings
from housecall.credentials import load
from housecall.errors import Kind, Refusal
from housecall.v1 import ledger_pb2

if TYPE_CHECKING:
    from housecall.verify import Verified

STEPS = (
    "the checkpoint is signed by the ledger's key",
    "the statement is in the checkpoint's tree at its index",
    "the signer's enrolment is in the same tree, before the statement",
    "the enrolment is signed by the key that it introduces",
    "the statement is signed by that key",
)
"""What `housecall.verify.verify_bundle` checks, in its order."""


def write(bundle: ledger_pb2.Bundle, path: Path) -> None:
    from google.protobuf import json_format

    path.write_text(json_format.MessageToJson(bundle) + "\n", encoding="utf-8")


def read(path: Path) -> ledger_pb2.Bundle:
    """Refuses with BUNDLE_MALFORMED what is not a result file."""
    from google.protobuf import json_format

    try:
        return json_format.Parse(path.read_text(encoding="utf-8"), ledger_pb2.Bundle())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise Refusal(
            Kind.INVALID,
            "BUNDLE_MALFORMED",
            f"{path}: expected a file written by `housecall result export`, got {error}",
        ) from error


def verify(bundle: ledger_pb2.Bundle, key: str) -> Verified:
    """All five steps, and that it is a result. Raises Refusal."""
    from housecall.identity import split_id
    from housecall.v1 import statements_pb2 as pb
    from housecall.verify import verify_bundle

    verified = verify_bundle(bundle, key)
    if verified.statement.kind != "ResultSubmitted":
        raise Refusal(
            Kind.INVALID,
            "NOT_A_RESULT",
            f"expected a ResultSubmitted, got a {verified.statement.kind} (it does hold)",
        )
    said = verified.statement.predicate
    assert isinstance(said, pb.ResultSubmitted)
    _, kind, name = split_id(verified.signer)
    if kind != "site" or name != said.dataset_id.partition("/")[0]:
        raise Refusal(
            Kind.INVALID,
            "SIGNER_NOT_ENTITLED",
            f"a result of dataset {said.dataset_id}: expected its site's signature, got that of "
            f"{verified.signer}",
        )
    return verified


def unverified(path: Path) -> dict[str, Any]:
    """What a file says, unchecked."""
    from housecall import statement

    bundle = read(path)
    opened = statement.unverified(bundle.statement.envelope)
    return {
        "verified": False,
        "kind": opened.kind,
        "envelope_digest": opened.envelope_digest,
        "ledger_index": bundle.statement.ledger_index,
        "statement": json.loads(opened.payload)["predicate"],
    }


def ledger_key(settings: Settings, given: str | None) -> str:
    """The ledger's verifier key: given as text or in a file, else as pinned at enrolment."""
    if given:
        path = Path(given)
        is_file = "+" not in given or path.is_file()
        return path.read_text(encoding="utf-8").strip() if is_file else given.strip()
    try:
        return load(settings.identity_folder).verifier_key
    except Refusal as refusal:
        if refusal.code != "NOT_ENROLLED":
            raise
        if key := _site_key(settings):
            return key
        raise Refusal(
            Kind.NOT_READY,
            "LEDGER_KEY_NEEDED",
            "no ledger key is pinned here: give --ledger-key KEY or FILE, as the coordinator's "
            "operator publishes it",
        ) from None


def _site_key(settings: Settings) -> str:
    """At a site: the key that its agent pinned; "" where there is no agent."""
    from cli import connect

    if not connect.has_socket(settings):
        return ""
    from housecall.v1 import site_pb2, site_pb2_grpc

    with connect.site(settings) as end:
        stub = site_pb2_grpc.SiteApiStub(end.channel)
        return end.call(stub.GetStatus, site_pb2.GetStatusRequest()).verifier_key
