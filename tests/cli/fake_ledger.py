"""A real ledger in memory: real signatures, proofs and checkpoints, no rules about who may what.

Entry 0 introduces the coordinator's own key; `introduce` enrols the signer of what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from housecall import merkle, note, statement
from housecall.errors import Kind, Refusal
from housecall.v1 import authority_pb2, ledger_pb2
from housecall.v1 import statements_pb2 as pb
from tests.cli.servicer import Servicer, refuse

ORIGIN = "demo.ledger"


@dataclass(frozen=True)
class Registered:
    """A statement that a registry shows, and who signed it."""

    owner: str
    key: Ed25519PrivateKey
    envelope: bytes


class FakeLedger(Servicer):
    """Also answers Authority's calls: `certified` is what it certifies join keys with, `renew`
    how it renews certificates. `withheld` entries show their leaf hashes only; `registered` finds
    what a registry shows by its envelope's digest."""

    def __init__(self) -> None:
        super().__init__()
        self.key = Ed25519PrivateKey.generate()
        self.verifier_key = note.verifier_key(ORIGIN, self.key.public_key().public_bytes_raw())
        self.envelopes: list[bytes] = []
        self.withheld: set[int] = set()
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.enrolments: dict[str, int] = {}
        self.certified: list[bytes] = []
        self.renew: Callable[[Any], Any] | None = None
        self.registered: Callable[[str], Registered | None] = lambda _digest: None
        self.introduce("spiffe://demo/coordinator", Ed25519PrivateKey.generate())

    def introduce(self, name: str, key: Ed25519PrivateKey) -> None:
        public = key.public_key().public_bytes_raw()
        predicate = pb.ParticipantEnrolled(name=name, role=pb.ROLE_PERSON, signing_key=public)
        self.add(statement.sign(statement.build(predicate, {}), key))
        self.enrolments[statement.key_id(public)] = len(self.envelopes) - 1

    def add(self, envelope: bytes) -> int:
        leaf = merkle.leaf_hash(envelope)
        for level, index, value in merkle.new_nodes(len(self.envelopes), leaf, self._get):
            self.nodes[level, index] = value
        self.envelopes.append(envelope)
        return len(self.envelopes) - 1

    def checkpoint(self) -> str:
        size = len(self.envelopes)
        root = merkle.root(size, self._get)
        return note.sign_checkpoint(ORIGIN, size, root, ORIGIN, self.key)

    def receipt(self, index: int) -> ledger_pb2.Receipt:
        return ledger_pb2.Receipt(
            ledger_index=index, inclusion_proof=self._proof(index), checkpoint=self.checkpoint()
        )

    def bundle(self, index: int) -> ledger_pb2.Bundle:
        opened = statement.unverified(self.envelopes[index])
        bundle = ledger_pb2.Bundle(statement=self._entry(index), checkpoint=self.checkpoint())
        if opened.key_id in self.enrolments:
            bundle.enrolment.CopyFrom(self._entry(self.enrolments[opened.key_id]))
        return bundle

    def stated(self, back: int = 1) -> Any:
        """The predicate of the newest entry, or of the one that many from the end."""
        return statement.unverified(self.envelopes[-back]).predicate

    def Append(
        self, request: ledger_pb2.AppendRequest, context: grpc.ServicerContext
    ) -> ledger_pb2.AppendResponse:
        index = self.add(request.envelope)
        return ledger_pb2.AppendResponse(receipt=self.receipt(index), id="4")

    def GetCheckpoint(self, request: Any, context: grpc.ServicerContext) -> Any:
        return ledger_pb2.GetCheckpointResponse(
            checkpoint=self.checkpoint(), verifier_key=self.verifier_key
        )

    def GetBundle(self, request: Any, context: grpc.ServicerContext) -> Any:
        index = request.ledger_index
        if request.envelope_digest:
            index = self._index(request.envelope_digest)
        if index in self.withheld:
            text = f"there is no ledger entry {index}, or it is not yours to see"
            refuse(context, Refusal(Kind.NOT_FOUND, "LEDGERENTRY_NOT_FOUND", text))
        return ledger_pb2.GetBundleResponse(bundle=self.bundle(index))

    def _index(self, envelope_digest: str) -> int:
        """Of an entry by its digest; what a registry shows is entered when it is asked for. An
        unknown digest is the newest entry's."""
        known = [statement.digest(envelope) for envelope in self.envelopes]
        if envelope_digest in known:
            return known.index(envelope_digest)
        found = self.registered(envelope_digest)
        if found is None:
            return len(self.envelopes) - 1
        self.introduce(found.owner, found.key)
        return self.add(found.envelope)

    def GetConsistencyProof(self, request: Any, context: grpc.ServicerContext) -> Any:
        proof = merkle.consistency_proof(request.old_size, request.new_size, self._get)
        return ledger_pb2.GetConsistencyProofResponse(proof=proof, checkpoint=self.checkpoint())

    def ListEntries(self, request: Any, context: grpc.ServicerContext) -> Any:
        response = ledger_pb2.ListEntriesResponse(tree_size=len(self.envelopes))
        for index in range(request.start, min(request.start + 2, len(self.envelopes))):
            envelope = self.envelopes[index]
            response.entries.add(
                ledger_index=index,
                envelope=b"" if index in self.withheld else envelope,
                leaf_hash=merkle.leaf_hash(envelope),
            )
        return response

    def IssueToken(self, request: Any, context: grpc.ServicerContext) -> Any:
        index = self.add(request.envelope)
        return authority_pb2.IssueTokenResponse(
            receipt=self.receipt(index),
            certificate_chain=self.certified,
            root_certificate=self.certified[0],
        )

    def ListTokens(self, request: Any, context: grpc.ServicerContext) -> Any:
        """In pages of one."""
        states = {"north": authority_pb2.TOKEN_STATE_OPEN, "south": authority_pb2.TOKEN_STATE_USED}
        found = [
            authority_pb2.Token(
                token_id="0123456789abcdef",
                name=f"spiffe://demo/site/{name}",
                role=pb.ROLE_SITE,
                state=state,
            )
            for name, state in states.items()
            if request.state in (authority_pb2.TOKEN_STATE_UNSPECIFIED, state)
        ]
        start = int(request.page_token or 0)
        more = str(start + 1) if start + 1 < len(found) else ""
        tokens = found[start : start + 1]
        return authority_pb2.ListTokensResponse(tokens=tokens, next_page_token=more)

    def Renew(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.renew is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return self.renew(request)

    def _entry(self, index: int) -> ledger_pb2.Bundle.Entry:
        return ledger_pb2.Bundle.Entry(
            envelope=self.envelopes[index],
            ledger_index=index,
            inclusion_proof=self._proof(index),
        )

    def _proof(self, index: int) -> list[bytes]:
        return merkle.inclusion_proof(index, len(self.envelopes), self._get)

    def _get(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]
