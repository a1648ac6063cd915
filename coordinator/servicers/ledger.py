"""The Ledger service: messages to arguments and back."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from coordinator.caller import current_caller
from coordinator.ledger import Ledger
from coordinator.models import LedgerEntry
from coordinator.notary import Accepted, Notary
from coordinator.paging import PAGE_BYTES
from coordinator.store import Reader, Store
from coordinator.visibility import Eyes
from housecall import merkle
from housecall.errors import Kind, Refusal
from housecall.v1 import ledger_pb2 as pb
from housecall.v1 import ledger_pb2_grpc

AT_ONCE = 100


def answer(accepted: Accepted) -> pb.AppendResponse:
    return pb.AppendResponse(receipt=accepted.receipt, id=accepted.id)


class LedgerServicer(ledger_pb2_grpc.LedgerServicer):
    def __init__(self, store: Store, ledger: Ledger, notary: Notary) -> None:
        self._store = store
        self._ledger = ledger
        self._notary = notary

    async def Append(  # many may wait at once: none takes a thread
        self, request: pb.AppendRequest, context: grpc.ServicerContext
    ) -> pb.AppendResponse:
        return answer(await self._notary.appended(request.envelope, current_caller()))

    def GetCheckpoint(
        self, request: pb.GetCheckpointRequest, context: grpc.ServicerContext
    ) -> pb.GetCheckpointResponse:
        with self._store.read() as reader:
            checkpoint = self._ledger.checkpoint(reader.tree_size(), reader.node)
        return pb.GetCheckpointResponse(
            checkpoint=checkpoint, verifier_key=self._ledger.verifier_key
        )

    def GetBundle(
        self, request: pb.GetBundleRequest, context: grpc.ServicerContext
    ) -> pb.GetBundleResponse:
        with self._store.read() as reader:
            entry = self._find(reader, request)
            bundle = self._ledger.bundle(reader, entry, reader.tree_size())
        return pb.GetBundleResponse(bundle=bundle)

    def _find(self, reader: Reader, request: pb.GetBundleRequest) -> LedgerEntry:
        entry: LedgerEntry | None
        if request.WhichOneof("entry") == "envelope_digest":
            asked = request.envelope_digest
            entry = reader.entry_by_digest(asked)
        else:
            asked = str(request.ledger_index)
            entry = reader.find(LedgerEntry, request.ledger_index)
        if entry is None or not Eyes(reader, current_caller()).entry(entry):
            raise Refusal(
                Kind.NOT_FOUND,
                "LEDGERENTRY_NOT_FOUND",
                f"there is no ledger entry {asked}, or it is not yours to see",
            )
        return entry

    def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: grpc.ServicerContext
    ) -> pb.GetConsistencyProofResponse:
        with self._store.read() as reader:
            size = reader.tree_size()
            new_size = request.new_size or size
            if not request.old_size <= new_size <= size:
                raise Refusal(
                    Kind.INVALID,
                    "TREE_SIZE_INVALID",
                    f"expected old_size <= new_size <= {size}, got {request.old_size} and "
                    f"{new_size}",
                )
            return pb.GetConsistencyProofResponse(
                proof=merkle.consistency_proof(request.old_size, new_size, reader.node),
                checkpoint=self._ledger.checkpoint(new_size, reader.node),
            )

    def ListEntries(
        self, request: pb.ListEntriesRequest, context: grpc.ServicerContext
    ) -> pb.ListEntriesResponse:
        """As many as are asked for, or as many bytes as a client takes with one more."""
        count, room = min(request.count or 100, 1000), PAGE_BYTES
        with self._store.read() as reader:
            eyes = Eyes(reader, current_caller())
            shown: list[pb.ListEntriesResponse.Entry] = []
            for entry in _entries(reader, request.start, count):
                message = pb.ListEntriesResponse.Entry(
                    ledger_index=entry.ledger_index,
                    envelope=entry.envelope if eyes.entry(entry) else b"",
                    leaf_hash=merkle.leaf_hash(entry.envelope),
                )
                shown.append(message)
                room -= message.ByteSize()
                if room <= 0:
                    break
            return pb.ListEntriesResponse(entries=shown, tree_size=reader.tree_size())


def _entries(reader: Reader, start: int, count: int) -> Iterator[LedgerEntry]:
    """Up to `count` from `start` on; a few at a time, since each may have a MiB."""
    for first in range(start, start + count, AT_ONCE):
        yield from reader.entries(first, min(AT_ONCE, start + count - first))
