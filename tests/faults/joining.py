"""Joining: tokens made the way the CLI makes them, and desks of those who enrol with them."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from housecall import client, statement, tokens
from housecall.identity import spiffe_id
from housecall.v1 import authority_pb2, authority_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from tests.faults.coordinators import TRUST_DOMAIN
from tests.faults.desk import CALL_S, Desk, Said


def token(olga: Desk, name: str, role: pb.Role.ValueType = pb.ROLE_PERSON) -> str:
    """A join token's text. Raises `Refusal`; SystemExit when the harness ends first."""
    kind = "site" if role == pb.ROLE_SITE else "person"
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    new = tokens.new_token(spiffe_id(TRUST_DOMAIN, kind, name), role, expires_at)
    envelope = new.envelope(olga.identity.signing_key)
    request = authority_pb2.IssueTokenRequest(envelope=envelope, csr=new.csr)
    stub = authority_pb2_grpc.AuthorityStub(olga.channel)
    said = Said(olga.name, "JoinTokenIssued", envelope, statement.digest(envelope))
    answer = olga.ask(said, lambda: stub.IssueToken(request, timeout=CALL_S))
    if answer is None:
        raise SystemExit
    address, chain = olga.identity.address, list(answer.certificate_chain)
    return tokens.write(new.certified(address, answer.root_certificate, chain))


def desk(text: str, folder: Path, stop: threading.Event) -> Desk:
    """Of whom the token names. Raises `Refusal`; the same call goes on where one broke off."""
    return Desk(client.enrol(text, folder), stop)
