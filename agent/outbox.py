"""The outbox: what was released and has no receipt yet. What is in flight, and what comes back.

An entry leaves only on a receipt whose inclusion proof and checkpoint hold, or on a refusal for
good. A refusal that passes (the coordinator is full, or stumbled) is tried again, and so is what
found no answer though the stream holds: whoever calls `pump` from time to time sees to both.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from agent.identity import Uplink
from agent.journal import Journal
from agent.release import Releases
from housecall.errors import Kind, Refusal
from housecall.rpc import CALL_SECONDS
from housecall.v1 import fleet_pb2, ledger_pb2, ledger_pb2_grpc
from housecall.verify import check_checkpoint, check_consistency, check_receipt

RETRY_S = 30.0
ANSWER_S = 300.0
PASSING = frozenset({Kind.UNAVAILABLE, Kind.INTERNAL, Kind.EXHAUSTED})
log = logging.getLogger(__name__)


class Outbox:
    """`send` puts an envelope on the stream, and says whether there is one; the link sets it."""

    def __init__(self, journal: Journal, releases: Releases, uplink: Uplink) -> None:
        self._journal, self._releases, self._uplink = journal, releases, uplink
        self._lock = threading.Lock()
        self._again_at: dict[str, float] = {}  # of what is in flight or passed over; monotonic
        self.send: Callable[[bytes], bool] = lambda _: False

    def pump(self) -> None:
        """Send the oldest entry of each lane, unless it is on its way."""
        with self._lock:
            now = time.monotonic()
            for digest in self._journal.first_of_lanes():
                if self._again_at.get(digest, now) <= now:
                    entry = self._journal.outgoing(digest)
                    if entry is not None and self.send(entry.envelope):
                        self._again_at[digest] = now + ANSWER_S

    def forget(self) -> None:
        """The stream ended: nothing is on its way any more."""
        with self._lock:
            self._again_at.clear()

    def receipted(self, said: fleet_pb2.Receipted) -> None:
        entry = self._journal.outgoing(said.envelope_digest)
        if entry is None:
            log.error("receipt of an unknown statement", extra={"digest": said.envelope_digest})
            return
        try:
            check_receipt(entry.envelope, said.receipt, self._uplink.identity.verifier_key)
        except Refusal as refusal:
            raise Refusal(
                Kind.INVALID,
                "RECEIPT_INVALID",
                f"the receipt of {said.envelope_digest} does not hold: {refusal.message}; the "
                "statement stays in the outbox",
            ) from refusal
        self._witness(said.receipt.checkpoint)
        receipt = said.receipt.SerializeToString()
        self._releases.accept(said.envelope_digest, receipt, said.id)
        index, digest = said.receipt.ledger_index, said.envelope_digest
        extra = {"kind": entry.kind, "index": index, "digest": digest, "id": said.id}
        log.info("accepted", extra=extra)
        self._landed(said.envelope_digest)

    def _witness(self, checkpoint: str) -> None:
        """A receipt counts only in the ledger that this site has seen: no fork of it."""
        key, seen = self._uplink.identity.verifier_key, self._journal.fact("checkpoint")
        if not seen or seen == checkpoint:
            return
        old, new = sorted((seen, checkpoint), key=lambda text: check_checkpoint(text, key).size)
        request = ledger_pb2.GetConsistencyProofRequest(
            old_size=check_checkpoint(old, key).size, new_size=check_checkpoint(new, key).size
        )
        with self._uplink.identity.refusals():
            stub = ledger_pb2_grpc.LedgerStub(self._uplink.channel)
            proof = stub.GetConsistencyProof(request, timeout=CALL_SECONDS).proof
        check_consistency(old, new, list(proof), key)
        self._journal.set_fact("checkpoint", new)

    def refused(self, said: fleet_pb2.Refused) -> None:
        kind = _kind(said.kind)
        if kind in PASSING:
            log.warning("refused for now", extra={"code": said.code})
            with self._lock:
                self._again_at[said.envelope_digest] = time.monotonic() + RETRY_S
            return
        self._releases.refuse(said.envelope_digest, (kind.value, said.code, said.text))
        self._landed(said.envelope_digest)

    def _landed(self, envelope_digest: str) -> None:
        with self._lock:
            self._again_at.pop(envelope_digest, None)
        self.pump()


def _kind(text: str) -> Kind:
    try:
        return Kind(text)
    except ValueError:  # of a newer coordinator: not known to be for good
        return Kind.INTERNAL
