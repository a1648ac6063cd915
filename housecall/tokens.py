"""Join tokens: made by whoever issues them, read by whoever joins.

A token carries a short-lived client certificate and its key, good for Enrol only. The key is made
here, at the issuer; the coordinator certifies it and never sees it. As text it is "hc1." and the
base64url of a `JoinToken`.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError

from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.identity import make_csr, new_tls_key, public_key_digest, spiffe_id, split_id
from housecall.times import stamp
from housecall.users import user_name
from housecall.v1 import authority_pb2
from housecall.v1 import statements_pb2 as pb

PREFIX = "hc1."


@dataclass(frozen=True)
class NewToken:
    """A token that is being issued: its key, and what has to be signed and certified."""

    key: ec.EllipticCurvePrivateKey
    said: pb.JoinTokenIssued

    @property
    def csr(self) -> bytes:
        """PKCS #10 in DER, for the SPIFFE id of this very token."""
        return make_csr(self.key, self.join_name)

    @property
    def join_name(self) -> str:
        return spiffe_id(split_id(self.said.name)[0], "join", self.said.token_id)

    def envelope(self, signing_key: Ed25519PrivateKey) -> bytes:
        """The JoinTokenIssued, signed by its issuer."""
        subject = {f"join key of {self.said.name}": public_key_digest(self.key.public_key())}
        return statement.sign(statement.build(self.said, subject), signing_key)

    def certified(self, address: str, root: bytes, chain: list[bytes]) -> authority_pb2.JoinToken:
        """The whole token. `root` and `chain` are certificates in DER."""
        return authority_pb2.JoinToken(
            address=address,
            name=self.said.name,
            role=self.said.role,
            root_certificate=root,
            certificate_chain=chain,
            private_key=self.key.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            expires_at=self.said.expires_at,
        )


def new_token(
    name: str, role: pb.Role.ValueType, expires_at: datetime, *, renews: bool = False
) -> NewToken:
    """Begin a token for the SPIFFE id `name`, with a key of its own; one that `renews` is for who
    holds the name."""
    key = new_tls_key()
    said = pb.JoinTokenIssued(
        token_id=_key_id(key.public_key()),
        name=name,
        role=role,
        expires_at=stamp(expires_at.replace(microsecond=0)),
        renews=renews,
    )
    return NewToken(key, said)


def token_id(token: authority_pb2.JoinToken) -> str:
    """First 16 hex digits of the join key's digest."""
    key = x509.load_der_x509_certificate(token.certificate_chain[0]).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return _key_id(key)


def write(token: authority_pb2.JoinToken) -> str:
    """The token's text."""
    return PREFIX + base64.urlsafe_b64encode(token.SerializeToString()).decode().rstrip("=")


def given(token: str) -> str:
    """The text of a token that is given as such, or by `@` and the file that holds it. Refuses
    FILE_FAILED."""
    if not token.startswith("@"):
        return token
    try:
        return Path(token[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        got = "no text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise Refusal(
            Kind.INVALID,
            "FILE_FAILED",
            f"join token {token[1:]}: expected a text file that user {user_name(os.geteuid())} may "
            f"read, got: {got}; check the path behind the @, and the file's rights",
        ) from None


def read(text: str) -> authority_pb2.JoinToken:
    """Parse a join token's text. Refuses what is not one, or is past its time."""
    try:
        if not text.strip().startswith(PREFIX):
            raise ValueError(f"expected a text that starts with {PREFIX}")
        raw = text.strip().removeprefix(PREFIX)
        token = authority_pb2.JoinToken.FromString(
            base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))
        )
        if not (token.address and token.name and token.certificate_chain and token.private_key):
            raise ValueError("expected a whole token; was it cut when it was copied?")
    except (ValueError, binascii.Error, DecodeError) as error:
        raise Refusal(
            Kind.INVALID, "TOKEN_MALFORMED", f"not a join token: {error}; ask for a new one"
        ) from error
    if token.expires_at.ToDatetime(UTC) <= datetime.now(UTC):
        raise Refusal(
            Kind.NOT_ALLOWED,
            "TOKEN_EXPIRED",
            f"this join token for {token.name} expired at "
            f"{token.expires_at.ToJsonString()}: ask the operator for a new one",
        )
    return token


def _key_id(key: ec.EllipticCurvePublicKey) -> str:
    return public_key_digest(key).removeprefix("sha256:")[:16]
