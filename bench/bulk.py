"""Participants and statements by the thousand: through the notary, before a coordinator serves.

Nothing is short of real but the wire. Every join token and enrolment is a signed statement that the
rules took, each certificate is made by the coordinator's CA for a key of its own, and all of it is
in the ledger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message

from bench.coordinators import Founded
from coordinator.authority import LEAF_LIFE
from coordinator.caller import ROLES, Caller, CallerRole
from coordinator.founding import House
from coordinator.notary import Accepted, Notary
from coordinator.store import Store
from housecall import statement, tokens
from housecall.identity import (
    Identity,
    make_csr,
    new_tls_key,
    private_pem,
    public_key_digest,
    spiffe_id,
    split_id,
)
from housecall.v1 import ledger_pb2
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.world import Party, sha

TOKEN_LIFE = timedelta(hours=1)
ACCEPTED_S = 120.0


@dataclass
class Member(Party):
    """An enrolled participant whose statements go straight to the notary, past its channel."""

    bulk: Bulk
    caller: Caller

    def state(self, said: Message) -> ledger_pb2.AppendResponse:
        (accepted,) = self.bulk.state([(self, said)])
        return ledger_pb2.AppendResponse(receipt=accepted.receipt, id=accepted.id)


class Bulk:
    """Works while nobody serves the store."""

    def __init__(self, house: House, notary: Notary, nowhere: grpc.Channel) -> None:
        self._house, self._notary, self._nowhere = house, notary, nowhere
        self._itself = Caller(house.name, CallerRole.OPERATOR, "", datetime.max.replace(tzinfo=UTC))

    def state(self, said: Iterable[tuple[Member, Message]]) -> list[Accepted]:
        """All of it durable, in this order."""
        signed = [
            (_signed(message, member.identity.signing_key), member.caller)
            for member, message in said
        ]
        return self._accept(signed)

    def join(self, names: Sequence[str], role: pb.Role.ValueType) -> list[Member]:
        """Enrolled by tokens of the coordinator's own."""
        kind = "site" if role == pb.ROLE_SITE else "person"
        domain, expires_at = self._house.trust_domain, datetime.now(UTC) + TOKEN_LIFE
        issued = [
            tokens.new_token(spiffe_id(domain, kind, name), role, expires_at) for name in names
        ]
        self._accept((new.envelope(self._house.signing_key), self._itself) for new in issued)
        joining = [_Joining(new) for new in issued]
        self._accept((each.envelope(), each.caller(expires_at)) for each in joining)
        return [self._member(each, role) for each in joining]

    def _member(self, joining: _Joining, role: pb.Role.ValueType) -> Member:
        house, name = self._house, joining.new.said.name
        not_after = datetime.now(UTC) + LEAF_LIFE[split_id(name)[1]]
        leaf = house.authority.certify(make_csr(joining.tls_key, name), name, not_after)
        identity = Identity(
            name=name,
            address=house.address,
            verifier_key=house.ledger.verifier_key,
            root_pem=house.authority.root_pem,
            chain_pem=house.authority.chain_pem(leaf).encode(),
            tls_key_pem=private_pem(joining.tls_key),
            signing_key=joining.signing_key,
        )
        caller = Caller(name, ROLES[role], joining.tls_key_digest, not_after)
        return Member(identity, self._nowhere, self, caller)

    def _accept(self, signed: Iterable[tuple[bytes, Caller]]) -> list[Accepted]:
        futures: list[Future[Accepted]] = [self._notary.submit(*each) for each in signed]
        return [future.result(ACCEPTED_S) for future in futures]


class _Joining:
    """The keys that a newcomer makes, and its introduction."""

    def __init__(self, new: tokens.NewToken) -> None:
        self.new = new
        self.tls_key, self.signing_key = new_tls_key(), Ed25519PrivateKey.generate()
        self.tls_key_digest = public_key_digest(self.tls_key.public_key())

    def caller(self, expires_at: datetime) -> Caller:
        return Caller(self.new.join_name, CallerRole.JOINER, "", expires_at)

    def envelope(self) -> bytes:
        said = pb.ParticipantEnrolled(
            name=self.new.said.name,
            role=self.new.said.role,
            signing_key=self.signing_key.public_key().public_bytes_raw(),
            tls_key_digest=self.tls_key_digest,
            token_id=self.new.said.token_id,
        )
        return _signed(said, self.signing_key)


def _signed(said: Message, key: Ed25519PrivateKey) -> bytes:
    return statement.sign(statement.build(said, {"bench": sha("subject")}), key)


@contextlib.contextmanager
def bulk(at: Founded) -> Iterator[Bulk]:
    """Within, the store is this process's own."""
    with (
        contextlib.closing(Store(at.settings.store_url)) as store,
        Notary(store, at.house.ledger) as notary,
        grpc.insecure_channel(at.settings.listen) as nowhere,
    ):
        yield Bulk(at.house, notary, nowhere)
