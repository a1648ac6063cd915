"""The ledger over the store: appending in the writer's transaction, proofs from any session.

Entries and tree nodes of a batch are held in memory until `flush` writes them in one go, inside
the transaction of the rows that follow from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.models import LedgerEntry, LedgerNode, News
from coordinator.store import Reader, Writer
from housecall import merkle
from housecall.note import sign_checkpoint, verifier_key
from housecall.statement import Statement, unverified
from housecall.v1 import ledger_pb2

NodeGetter = Callable[[int, int], bytes]


class Ledger:
    """One log, named by `origin`; its checkpoints are signed with `key`."""

    def __init__(self, origin: str, key: Ed25519PrivateKey) -> None:
        self.origin = origin
        self._key = key
        self.verifier_key = verifier_key(origin, key.public_key().public_bytes_raw())

    def checkpoint(self, size: int, get: NodeGetter) -> str:
        """A signed checkpoint of the first `size` entries."""
        return sign_checkpoint(self.origin, size, merkle.root(size, get), self.origin, self._key)

    def receipt(self, index: int, size: int, get: NodeGetter, checkpoint: str) -> Any:
        return ledger_pb2.Receipt(
            ledger_index=index,
            inclusion_proof=merkle.inclusion_proof(index, size, get),
            checkpoint=checkpoint,
        )

    def bundle(self, reader: Reader, entry: LedgerEntry, size: int) -> ledger_pb2.Bundle:
        """`entry` and its signer's enrolment, proven against the tree of `size` entries."""
        enrolment = reader.entry(entry.enrolment_index)
        statement, introduced = (
            ledger_pb2.Bundle.Entry(
                envelope=item.envelope,
                ledger_index=item.ledger_index,
                inclusion_proof=merkle.inclusion_proof(item.ledger_index, size, reader.node),
            )
            for item in (entry, enrolment)
        )
        return ledger_pb2.Bundle(
            statement=statement,
            enrolment=introduced,
            checkpoint=self.checkpoint(size, reader.node),
        )


class Batch:
    """Entries appended but not yet written: the tree grows in memory, `flush` writes."""

    def __init__(self, writer: Writer, envelope_digests: Sequence[str]) -> None:
        """`envelope_digests` are those that `find` may be asked for."""
        self.size = writer.tree_size()
        self._writer = writer
        self._known = {
            entry.envelope_digest: (entry.ledger_index, entry.thing_id)
            for entry in writer.entries_by_digest(envelope_digests)
        }
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._new_nodes: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []
        self._news: list[dict[str, Any]] = []

    def node(self, level: int, number: int) -> bytes:
        """A node, from this batch's memory or the store; remembers what it fetched."""
        key = (level, number)
        if key not in self._nodes:
            self._nodes[key] = self._writer.node(level, number)
        return self._nodes[key]

    def find(self, envelope_digest: str) -> tuple[int, str] | None:
        """(index, id) of an envelope that is in the ledger or in this batch."""
        return self._known.get(envelope_digest)

    def append(
        self,
        envelope: bytes,
        statement: Statement,
        *,
        signer: str,
        enrolment_index: int,
        thing_id: str,
        accepted_at: datetime,
        concerns: Iterable[str] = (),
    ) -> int:
        """The index that it gets. `concerns` are the sites that shall hear of it."""
        index = self.size
        for level, number, value in merkle.new_nodes(index, merkle.leaf_hash(envelope), self.node):
            self._nodes[level, number] = value
            self._new_nodes.append({"level": level, "number": number, "hash": value})
        self._known[statement.envelope_digest] = (index, thing_id)
        entry: dict[str, Any] = {
            "ledger_index": index,
            "envelope_digest": statement.envelope_digest,
            "kind": statement.kind,
            "signer": signer,
            "enrolment_index": enrolment_index,
            "thing_id": thing_id,
            "accepted_at": accepted_at,
            "envelope": envelope,
        }
        self._entries.append(entry)
        self._writer.hold(LedgerEntry(**entry), index)
        self._news += [{"site": site, "ledger_index": index} for site in concerns]
        self.size += 1
        return index

    def flush(self) -> None:
        self._writer.insert(LedgerEntry, self._entries)
        self._writer.insert(LedgerNode, self._new_nodes)
        self._writer.insert(News, self._news)


def predicate_of(entry: LedgerEntry) -> Any:
    """The predicate of a stored entry (checked when it was accepted)."""
    return unverified(entry.envelope).predicate


def root_of(envelopes: Iterable[bytes]) -> bytes:
    """The root of the tree over entries in their order, from their bytes alone."""
    peaks: list[tuple[int, bytes]] = []  # complete subtrees, the largest first: (leaves, hash)
    for envelope in envelopes:
        leaves, value = 1, merkle.leaf_hash(envelope)
        while peaks and peaks[-1][0] == leaves:
            value = merkle.node_hash(peaks.pop()[1], value)
            leaves *= 2
        peaks.append((leaves, value))
    if not peaks:
        return merkle.EMPTY_ROOT
    value = peaks.pop()[1]
    while peaks:
        value = merkle.node_hash(peaks.pop()[1], value)
    return value
