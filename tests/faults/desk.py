"""A person's desk: what they state is sent until it was accepted or refused for good.

Every envelope and every receipt is kept, for the reckoning in the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from housecall import client, statement
from housecall.errors import Kind, Refusal
from housecall.identity import Identity
from housecall.rpc import refusals
from housecall.v1 import authority_pb2, ledger_pb2, ledger_pb2_grpc, registry_pb2_grpc

A = TypeVar("A", ledger_pb2.AppendResponse, authority_pb2.IssueTokenResponse)
PASSING = frozenset({Kind.UNAVAILABLE, Kind.INTERNAL, Kind.EXHAUSTED, Kind.UNAUTHENTICATED})
"""Noes that another try may turn into a yes; with wrong clocks even certificates seem wrong."""
RETRY_S = 0.5
CALL_S = 15.0
SUBJECT = {"faults": statement.digest(b"faults")}


@dataclass
class Said:
    """One statement; `outcome` is "" until it is accepted or refused."""

    who: str
    kind: str
    envelope: bytes
    digest: str
    outcome: str = ""
    index: int = -1
    checkpoint: str = ""
    id: str = ""
    code: str = ""


class Desk:
    """One person's. Calls block until there is an answer; `None` when the harness ends."""

    def __init__(self, identity: Identity, stop: threading.Event) -> None:
        self.identity = identity
        self.name = identity.short_name
        self._stop = stop
        self.channel = client.connect(identity)
        self.said: list[Said] = []
        self.checkpoints: list[str] = []

    @property
    def registry(self) -> registry_pb2_grpc.RegistryStub:
        return registry_pb2_grpc.RegistryStub(self.channel)

    def pending(self) -> list[Said]:
        return [each for each in self.said if not each.outcome]

    def state(self, predicate: Message) -> Said | None:
        """Say it until there is an answer. Raises `Refusal` when it is no for good."""
        if isinstance(predicate, client.REPEATABLE):
            predicate.stated_at.GetCurrentTime()
        payload = statement.build(predicate, SUBJECT)
        envelope = statement.sign(payload, self.identity.signing_key)
        kind = predicate.DESCRIPTOR.name
        return self._append(Said(self.name, kind, envelope, statement.digest(envelope)))

    def repeat(self, said: Said) -> None:
        """Send an accepted statement again: its receipt must name the same entry."""
        self._append(Said(said.who, said.kind, said.envelope, said.digest))

    def look(self) -> None:
        """Keep the newest checkpoint: whatever it covers must stay."""
        try:
            with refusals("coordinator"):
                stub = ledger_pb2_grpc.LedgerStub(self.channel)
                found = stub.GetCheckpoint(ledger_pb2.GetCheckpointRequest(), timeout=CALL_S)
        except Refusal:
            return
        self.checkpoints.append(found.checkpoint)

    def close(self) -> None:
        self.channel.close()

    def ask(self, said: Said, call: Callable[[], A]) -> A | None:
        """Whatever call carries `said`: made until there is an answer, whose receipt is kept."""
        self.said.append(said)
        while not self._stop.is_set():
            try:
                with refusals("coordinator"):
                    answer = call()
            except Refusal as refusal:
                if refusal.kind not in PASSING:
                    said.outcome, said.code = "refused", refusal.code
                    raise
            else:
                said.index, said.checkpoint = answer.receipt.ledger_index, answer.receipt.checkpoint
                said.outcome = "accepted"
                return answer
            self._stop.wait(RETRY_S)
        return None

    def _append(self, said: Said) -> Said | None:
        stub = ledger_pb2_grpc.LedgerStub(self.channel)
        request = ledger_pb2.AppendRequest(envelope=said.envelope)
        answer = self.ask(said, lambda: stub.Append(request, timeout=CALL_S))
        if answer is None:
            return None
        said.id = answer.id
        return said
