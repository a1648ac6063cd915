"""The Authority service: join tokens, enrolment, renewal."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc

from coordinator import views
from coordinator.authority import LEAF_LIFE, CertificateAuthority, csr_key_digest
from coordinator.caller import current_caller
from coordinator.ledger import Ledger
from coordinator.models import JoinToken, Participant
from coordinator.notary import Notary
from coordinator.paging import page
from coordinator.rules.participants import check_keys
from coordinator.store import Store
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.identity import spiffe_id, split_id
from housecall.v1 import authority_pb2 as pb
from housecall.v1 import authority_pb2_grpc, statements_pb2


class AuthorityServicer(authority_pb2_grpc.AuthorityServicer):
    def __init__(
        self, store: Store, ledger: Ledger, notary: Notary, authority: CertificateAuthority
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._notary = notary
        self._authority = authority

    def IssueToken(
        self, request: pb.IssueTokenRequest, context: grpc.ServicerContext
    ) -> pb.IssueTokenResponse:
        caller = current_caller()
        said = statement.unverified(request.envelope).predicate
        if not isinstance(said, statements_pb2.JoinTokenIssued):
            raise _wrong_kind("JoinTokenIssued", said)
        digest = csr_key_digest(request.csr).removeprefix("sha256:")
        if digest[:16] != said.token_id:
            raise Refusal(
                Kind.INVALID,
                "TOKEN_KEY_DIFFERS",
                f"token id: expected {digest[:16]}, the digest of the CSR's key, got "
                f"{said.token_id}",
            )
        accepted = self._notary.append(request.envelope, caller)
        name = spiffe_id(split_id(caller.name)[0], "join", said.token_id)
        leaf = self._authority.certify(request.csr, name, said.expires_at.ToDatetime(UTC))
        return pb.IssueTokenResponse(
            receipt=accepted.receipt,
            certificate_chain=self._authority.chain_der(leaf),
            root_certificate=self._authority.root_der,
        )

    def ListTokens(
        self, request: pb.ListTokensRequest, context: grpc.ServicerContext
    ) -> pb.ListTokensResponse:
        now = datetime.now(UTC)
        with self._store.read() as reader:

            def visible(row: JoinToken) -> bool:
                return request.state in (pb.TOKEN_STATE_UNSPECIFIED, _state(row, now))

            shown, token = page(
                reader,
                JoinToken,
                request,
                visible,
                {},
                lambda row: views.token(row, _state(row, now)),
            )
            return pb.ListTokensResponse(tokens=shown, next_page_token=token)

    def Enrol(self, request: pb.EnrolRequest, context: grpc.ServicerContext) -> pb.EnrolResponse:
        said = statement.unverified(request.envelope).predicate
        if not isinstance(said, statements_pb2.ParticipantEnrolled):
            raise _wrong_kind("ParticipantEnrolled", said)
        _check_key(csr_key_digest(request.csr), said.tls_key_digest)
        with self._store.read() as reader:  # also for what the ledger has already
            check_keys(reader, said)
        accepted = self._notary.append(request.envelope, current_caller())
        return pb.EnrolResponse(
            receipt=accepted.receipt,
            certificate_chain=self._chain(request.csr, said.name),
            verifier_key=self._ledger.verifier_key,
        )

    def Renew(self, request: pb.RenewRequest, context: grpc.ServicerContext) -> pb.RenewResponse:
        caller = current_caller()
        with self._store.read() as reader:
            enrolled = reader.get(Participant, caller.name, "participant").tls_key_digest
        _check_key(csr_key_digest(request.csr), enrolled)
        return pb.RenewResponse(certificate_chain=self._chain(request.csr, caller.name))

    def _chain(self, csr: bytes, name: str) -> str:
        not_after = datetime.now(UTC) + LEAF_LIFE[split_id(name)[1]]
        return self._authority.chain_pem(self._authority.certify(csr, name, not_after))


def _state(row: JoinToken, now: datetime) -> pb.TokenState.ValueType:
    if row.used_index is not None:
        return pb.TOKEN_STATE_USED
    if row.revoked_index is not None:
        return pb.TOKEN_STATE_REVOKED
    return pb.TOKEN_STATE_EXPIRED if row.expires_at <= now else pb.TOKEN_STATE_OPEN


def _check_key(got: str, expected: str) -> None:
    if got != expected:
        raise Refusal(
            Kind.NOT_ALLOWED,
            "TLS_KEY_DIFFERS",
            f"the CSR's key: expected the enrolled {expected}, got {got}",
        )


def _wrong_kind(expected: str, said: object) -> Refusal:
    return Refusal(
        Kind.INVALID,
        "STATEMENT_UNEXPECTED",
        f"expected a {expected}, got a {type(said).__name__}",
    )
