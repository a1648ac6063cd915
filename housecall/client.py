"""A typed client of the coordinator: for the CLI, the agent, notebooks and tests.

`connect` opens the mutual-TLS channel of an identity, `append` signs and sends a statement and
checks its receipt, `enrol` turns a join token into an identity, `renew` renews a certificate.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message

from housecall import statement, tokens
from housecall.credentials import Credentials, explained, open_channel
from housecall.errors import Kind, Refusal
from housecall.identity import (
    Identity,
    make_csr,
    new_tls_key,
    private_pem,
    public_key_digest,
    write_private,
)
from housecall.proxy import Proxy, chosen
from housecall.rpc import CALL_SECONDS
from housecall.v1 import authority_pb2, authority_pb2_grpc, ledger_pb2, ledger_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from housecall.verify import check_receipt

RETRY_SECONDS = 1.0
REPEATABLE = (pb.ExecutionRequested, pb.BenchmarkPolicyChanged, pb.AssociationRequested)


def connect(credentials: Credentials) -> grpc.Channel:
    return credentials.connect()


def append(
    channel: grpc.Channel, identity: Identity, predicate: Message, subjects: Mapping[str, str]
) -> ledger_pb2.AppendResponse:
    """Sign a statement, append it, check the receipt. Raises Refusal.

    A kind that can be stated again with the same content says when it was stated.
    """
    if isinstance(predicate, REPEATABLE) and not predicate.HasField("stated_at"):
        predicate.stated_at.GetCurrentTime()
    payload = statement.build(predicate, subjects)
    return append_payload(channel, identity, payload)


def append_payload(
    channel: grpc.Channel, identity: Identity, payload: bytes
) -> ledger_pb2.AppendResponse:
    """Sign exactly these bytes, append them, check the receipt. Raises Refusal.

    Where the answer is lost, the same envelope is sent once more: it gets the same receipt.
    """
    envelope = statement.sign(payload, identity.signing_key)
    try:
        response = _append(channel, identity, envelope)
    except Refusal as refusal:
        if refusal.kind is not Kind.UNAVAILABLE:
            raise
        time.sleep(RETRY_SECONDS)
        response = _append(channel, identity, envelope)
    check_receipt(envelope, response.receipt, identity.verifier_key)
    return response


def _append(
    channel: grpc.Channel, identity: Identity, envelope: bytes
) -> ledger_pb2.AppendResponse:
    with identity.refusals():
        return ledger_pb2_grpc.LedgerStub(channel).Append(
            ledger_pb2.AppendRequest(envelope=envelope), timeout=CALL_SECONDS
        )


def enrol(
    text: str,
    folder: Path,
    role: pb.Role.ValueType | None = None,
    *,
    proxy: Proxy | None = None,
) -> Identity:
    """Turn a join token into an identity kept in `folder`, through `proxy` or the environment's.

    Keys are made and kept before the coordinator is asked, so that a lost answer costs nothing:
    repeating the call with the same token ends in the same identity. An identity whose certificate
    ran out keeps its keys, so that what they signed is still accepted.
    """
    token = tokens.read(text)
    if role == pb.ROLE_SITE and token.role != pb.ROLE_SITE:
        raise _wrong_role(token, "a person: use `housecall enroll`")
    if role == pb.ROLE_PERSON and token.role == pb.ROLE_SITE:
        raise _wrong_role(token, "a site: use `housecall-agent enroll`")
    if (folder / "identity.json").exists():
        _check_ran_out(folder, token.name)
    tls_key, signing_key = _pending_keys(folder)
    root_pem = _pem(token.root_certificate)
    predicate = pb.ParticipantEnrolled(
        name=token.name,
        role=token.role,
        signing_key=signing_key.public_key().public_bytes_raw(),
        tls_key_digest=public_key_digest(tls_key.public_key()),
        token_id=tokens.token_id(token),
    )
    payload = statement.build(predicate, {token.name: predicate.tls_key_digest})
    join_key = serialization.load_der_private_key(token.private_key, password=None)
    assert isinstance(join_key, ec.EllipticCurvePrivateKey)
    join_chain = b"".join(_pem(der) for der in token.certificate_chain)
    proxy = chosen(token.address, proxy)
    join_key_pem = private_pem(join_key)
    channel = open_channel(token.address, root_pem, join_chain, join_key_pem, proxy=proxy)
    envelope = statement.sign(payload, signing_key)
    with channel, explained(token.address, proxy):
        request = authority_pb2.EnrolRequest(envelope=envelope, csr=make_csr(tls_key, token.name))
        response = authority_pb2_grpc.AuthorityStub(channel).Enrol(request, timeout=CALL_SECONDS)
    check_receipt(envelope, response.receipt, response.verifier_key)
    identity = Identity(
        name=token.name,
        address=token.address,
        verifier_key=response.verifier_key,
        root_pem=root_pem,
        chain_pem=response.certificate_chain.encode(),
        tls_key_pem=private_pem(tls_key),
        signing_key=signing_key,
        proxy=proxy,
    )
    identity.save(folder)
    return identity


def renew(identity: Identity, folder: Path) -> Identity:
    """A new certificate for the same TLS key, saved to `folder`. Raises Refusal."""
    key = serialization.load_pem_private_key(identity.tls_key_pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    with connect(identity) as channel, identity.refusals():
        request = authority_pb2.RenewRequest(csr=make_csr(key, identity.name))
        response = authority_pb2_grpc.AuthorityStub(channel).Renew(request, timeout=CALL_SECONDS)
    renewed = dataclasses.replace(identity, chain_pem=response.certificate_chain.encode())
    renewed.save(folder)
    return renewed


def _check_ran_out(folder: Path, name: str) -> None:
    """The identity in the folder is of this name, and can no longer be renewed: its certificate ran
    out, or a part of it is lost that is not a key."""
    try:
        held = Identity.load(folder)
    except Refusal:
        if _keys(folder) is None or _name(folder) != name:
            raise
        return
    until = held.certificate.not_valid_after_utc
    if until > datetime.now(UTC):
        expected, got = "no identity, or one whose certificate ran out", f"one until {until}"
    elif held.name != name:
        expected, got = f"the identity of {name}, whom the token is for", held.name
    else:
        return
    raise Refusal(
        Kind.CONFLICT,
        "ALREADY_ENROLLED",
        f"{folder}: expected {expected}, got {got}; move it away to enrol anew",
    )


def _pending_keys(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, Ed25519PrivateKey]:
    """Keys from an enrolment that was cut off or whose certificate ran out, or new ones, on disk
    either way."""
    if (held := _keys(folder)) is not None:
        return held
    tls_key, signing_key = new_tls_key(), Ed25519PrivateKey.generate()
    write_private(folder / "tls.key", private_pem(tls_key))
    write_private(folder / "signing.key", private_pem(signing_key))
    return tls_key, signing_key


def _keys(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, Ed25519PrivateKey] | None:
    """Both, where both are good."""
    try:
        tls, signing = (
            serialization.load_pem_private_key((folder / name).read_bytes(), password=None)
            for name in ("tls.key", "signing.key")
        )
    except (FileNotFoundError, ValueError):
        return None
    if isinstance(tls, ec.EllipticCurvePrivateKey) and isinstance(signing, Ed25519PrivateKey):
        return tls, signing
    return None


def _name(folder: Path) -> str:
    """Whom the identity says it is of; "" where that cannot be read."""
    try:
        return str(json.loads((folder / "identity.json").read_bytes())["name"])
    except (ValueError, KeyError, TypeError):
        return ""


def _pem(der: bytes) -> bytes:
    certificate = x509.load_der_x509_certificate(der)
    return certificate.public_bytes(serialization.Encoding.PEM)


def _wrong_role(token: authority_pb2.JoinToken, what: str) -> Refusal:
    return Refusal(Kind.INVALID, "TOKEN_WRONG_ROLE", f"this join token is for {token.name}, {what}")
