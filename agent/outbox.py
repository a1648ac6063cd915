"""The outbox: what was released and has no receipt yet. What is in flight, and what comes back.

An entry leaves only on a receipt whose inclusion proof and checkpoint hold, or on a refusal for
good; a refusal that passes (the coordinator is full, or stumbled) is tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from agent.identity import Uplink
from agent.journal import Journal
from agent.release import Releases
from housecall.client import CALL_SECONDS
from housecall.errors import Kind, Refusal
from housecall.rpc import refusals
from housecall.v1 import fleet_pb2, ledger_pb2, ledger_pb2_grpc
from housecall.verify import check_checkpoint, check_consistency, check_receipt

RETRY_S = 30.0
PASSING = frozenset({Kind.UNAVAILABLE, Kind.INTERNAL, Kind.EXHAUSTED})
log = logging.getLogger(__name__)


class Outbox:
    """`send` puts an envelope on the stream; the link sets it."""

    def __init__(self, journal: Journal, releases: Releases, uplink: Uplink) -> None:
        self._journal, self._releases, self._uplink = journal, releases, uplink
        self._lock = threading.Lock()
        self._in_flight: set[str] = set()
        self.send: Callable[[bytes], None] = lambda _: None

    def pump(self) -> None:
        """Send the oldest entry of each lane, unless it is on its way."""
        with self._lock:
            lanes: set[str] = set()
            for entry in self._journal.waiting():
                lane = entry.lane or entry.envelope_digest
                if lane not in lanes and entry.envelope_digest not in self._in_flight:
                    self._in_flight.add(entry.envelope_digest)
                    self.send(entry.envelope)
                lanes.add(lane)

    def forget(self) -> None:
        """The stream ended: nothing is on its way any more."""
        with self._lock:
            self._in_flight.clear()

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
        log.info("accepted", extra={"kind": entry.kind, "index": said.receipt.ledger_index})
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
        with refusals(f"coordinator {self._uplink.identity.address}"):
            stub = ledger_pb2_grpc.LedgerStub(self._uplink.channel)
            proof = stub.GetConsistencyProof(request, timeout=CALL_SECONDS).proof
        check_consistency(old, new, list(proof), key)
        self._journal.set_fact("checkpoint", new)

    def refused(self, said: fleet_pb2.Refused) -> None:
        kind = _kind(said.kind)
        if kind in PASSING:
            log.warning("refused for now", extra={"code": said.code})
            later = threading.Timer(RETRY_S, self._landed, [said.envelope_digest])
            later.daemon = True
            later.start()
            return
        self._releases.refuse(said.envelope_digest, (kind.value, said.code, said.text))
        self._landed(said.envelope_digest)

    def _landed(self, envelope_digest: str) -> None:
        with self._lock:
            self._in_flight.discard(envelope_digest)
        self.pump()


def _kind(text: str) -> Kind:
    try:
        return Kind(text)
    except ValueError:
        return Kind.INVALID
