"""A person as witness of the ledger: remembers the newest checkpoint it saw, demands that the
next one continues it, and hashes the entries again."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from cli.connect import End
from cli.drafts import tree_size
from cli.settings import Settings
from housecall import merkle, statement
from housecall.errors import Kind, Refusal
from housecall.identity import write_private
from housecall.note import Checkpoint
from housecall.v1 import ledger_pb2, site_pb2
from housecall.v1.ledger_pb2_grpc import LedgerStub
from housecall.v1.site_pb2_grpc import SiteApiStub
from housecall.verify import check_checkpoint, check_consistency, verify_bundle

PAGE = 200


@dataclass(frozen=True)
class Checked:
    """An entry that holds."""

    statement: statement.Statement
    signer: str
    tree_size: int


def pinned_key(end: End) -> str:
    """The verifier key pinned at enrolment: the person's own, or at a site the agent's."""
    if end.verifier_key:
        return end.verifier_key
    return end.call(SiteApiStub(end.channel).GetStatus, site_pb2.GetStatusRequest()).verifier_key


def remembered(settings: Settings, key: str) -> str:
    """The newest checkpoint seen of this ledger; "" at first."""
    path = _path(settings, key)
    return path.read_text(encoding="utf-8") if path.exists() else ""


def remember(settings: Settings, key: str, text: str) -> None:
    write_private(_path(settings, key), text.encode())


def size_of(text: str) -> int | None:
    return tree_size(text) if text else None


def newest(end: End, key: str, seen: str) -> tuple[str, Checkpoint]:
    """The newest checkpoint, once it is known to continue `seen`. Raises LEDGER_REWRITTEN."""
    stub = LedgerStub(end.channel)
    text = end.call(stub.GetCheckpoint, ledger_pb2.GetCheckpointRequest()).checkpoint
    new = check_checkpoint(text, key)
    if not seen:
        return text, new
    old = check_checkpoint(seen, key)
    if new.size < old.size:
        raise Refusal(
            Kind.INVALID,
            "LEDGER_REWRITTEN",
            f"the ledger has {new.size} entries, {old.size} were seen before: expected it to grow. "
            "Keep both checkpoints as evidence",
        )
    request = ledger_pb2.GetConsistencyProofRequest(old_size=old.size, new_size=new.size)
    proof = list(end.call(stub.GetConsistencyProof, request).proof)
    return text, check_consistency(seen, text, proof, key)


def rehash(end: End, checked: Checkpoint) -> int:
    """Download every entry of the checkpoint's tree, hash it, and compute the root. Gives how
    many were withheld, being others' business: those count by their leaf hashes. Raises
    LEDGER_REWRITTEN."""
    newest_node: dict[int, bytes] = {}

    def get(level: int, _index: int) -> bytes:
        """Of each level only the newest node is ever asked for."""
        return newest_node[level]

    size = withheld = 0
    with click.progressbar(
        _entries(end, checked.size), length=checked.size, label="hashing entries", file=sys.stderr
    ) as entries:
        for entry in entries:
            leaf = merkle.leaf_hash(entry.envelope) if entry.envelope else entry.leaf_hash
            withheld += not entry.envelope
            nodes = merkle.new_nodes(size, leaf, get)
            newest_node.update({level: value for level, _, value in nodes})
            size += 1
    root = merkle.root(size, get)
    if size != checked.size or root != checked.root:
        raise Refusal(
            Kind.INVALID,
            "LEDGER_REWRITTEN",
            f"the entries do not give the checkpoint's root: expected {checked.root.hex()} of "
            f"{checked.size} entries, got {root.hex()} of {size}. Keep the checkpoint as evidence",
        )
    return withheld


def check_newest(end: End, key: str, checked: Checkpoint, count: int) -> int:
    """Check the newest entries each by its proofs, signatures included. Gives how many of them
    were withheld, being others' business."""
    method, withheld = LedgerStub(end.channel).GetBundle, 0
    for index in range(max(0, checked.size - count), checked.size):
        try:
            bundle = end.call(method, ledger_pb2.GetBundleRequest(ledger_index=index)).bundle
        except Refusal as refusal:
            if refusal.kind is not Kind.NOT_FOUND:
                raise
            withheld += 1
        else:
            check_bundle(bundle, key)
    return withheld


def check_bundle(bundle: ledger_pb2.Bundle, key: str) -> Checked:
    """All proofs of an entry; the coordinator's own key is introduced by entry 0."""
    verified = verify_bundle(bundle, key)
    return Checked(verified.statement, verified.signer, verified.checkpoint.size)


def _entries(end: End, size: int) -> Iterator[ledger_pb2.ListEntriesResponse.Entry]:
    """The first `size` entries, in order."""
    method, start = LedgerStub(end.channel).ListEntries, 0
    while start < size:
        request = ledger_pb2.ListEntriesRequest(start=start, count=min(PAGE, size - start))
        entries = end.call(method, request).entries
        if not entries:
            return
        yield from entries[: size - start]
        start += len(entries)


def _path(settings: Settings, key: str) -> Path:
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    return settings.home / "checkpoints" / f"{name}.txt"
