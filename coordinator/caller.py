"""Who is calling: read off the certificate once, at the edge, and handed on by contextvar."""

from __future__ import annotations

import contextvars
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from housecall.errors import Kind, Refusal
from housecall.identity import certificate_name, public_key_digest, split_id
from housecall.v1 import statements_pb2 as pb


class CallerRole(enum.Enum):
    """What a caller is to the method table. A joiner holds a join token's certificate."""

    JOINER = "joiner"
    SITE = "site"
    PERSON = "person"
    OPERATOR = "operator"


ROLES: Mapping[pb.Role.ValueType, CallerRole] = {
    pb.ROLE_SITE: CallerRole.SITE,
    pb.ROLE_PERSON: CallerRole.PERSON,
    pb.ROLE_OPERATOR: CallerRole.OPERATOR,
}


@dataclass(frozen=True)
class Caller:
    """An authenticated peer. `name` is its SPIFFE id; a joiner's ends in its token's id.
    `signing_key` is what the edge found enrolled: nothing for a joiner."""

    name: str
    role: CallerRole
    tls_key_digest: str
    certificate_expires_at: datetime
    signing_key: bytes = b""


_current: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")


def current_caller() -> Caller:
    """The caller of the RPC that is being served."""
    try:
        return _current.get()
    except LookupError:
        raise Refusal(
            Kind.UNAUTHENTICATED, "NO_CERTIFICATE", "expected a client certificate, got none"
        ) from None


def set_caller(caller: Caller) -> None:
    _current.set(caller)


def read_certificate(auth_context: Mapping[str, Sequence[bytes]]) -> tuple[str, str, datetime]:
    """(SPIFFE id, TLS key digest, expiry) of a peer, from gRPC's auth context."""
    pems = auth_context.get("x509_pem_cert")
    if not pems:
        raise Refusal(
            Kind.UNAUTHENTICATED, "NO_CERTIFICATE", "expected a client certificate, got none"
        )
    certificate = x509.load_pem_x509_certificate(pems[0])
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Refusal(Kind.UNAUTHENTICATED, "CERTIFICATE_FOREIGN", "expected a P-256 key")
    name = certificate_name(certificate)
    split_id(name)
    return name, public_key_digest(key), certificate.not_valid_after_utc
