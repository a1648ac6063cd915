"""Join tokens: made here with their key, certified by the coordinator, handed over as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from cli.connect import End
from cli.output import print_json
from cli.settings import Settings
from housecall.errors import Kind, Refusal
from housecall.v1 import authority_pb2
from housecall.v1 import statements_pb2 as pb

if TYPE_CHECKING:
    from housecall.identity import Identity

_DURATION = re.compile(r"([1-9]\d{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> timedelta:
    """`90s`, `30m`, `24h`, `7d`."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise Refusal(
            Kind.INVALID, "USAGE", f"--expires: expected a time as 30m, 24h or 7d, got {text!r}"
        )
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def issue(
    end: End,
    identity: Identity,
    name: str,
    role: pb.Role.ValueType,
    *,
    life: timedelta,
    renews: bool,
) -> authority_pb2.JoinToken:
    """State the token, have its key certified, check the receipt. Raises Refusal."""
    from housecall import tokens
    from housecall.v1.authority_pb2_grpc import AuthorityStub
    from housecall.verify import check_receipt

    new = tokens.new_token(name, role, datetime.now(UTC) + life, renews=renews)
    envelope = new.envelope(identity.signing_key)
    request = authority_pb2.IssueTokenRequest(envelope=envelope, csr=new.csr)
    response = end.call(AuthorityStub(end.channel).IssueToken, request)
    check_receipt(envelope, response.receipt, identity.verifier_key)
    chain = list(response.certificate_chain)
    return new.certified(identity.address, response.root_certificate, chain)


@contextmanager
def place(out: str | None) -> Iterator[IO[bytes] | None]:
    """Where a token goes: a new file, 0600, made before the token is; None = the output. Raises
    Refusal FILE_EXISTS."""
    if out is None:
        yield None
        return
    from housecall.files import new_private

    with new_private(Path(out)) as file:
        yield file


def show(
    settings: Settings, token: authority_pb2.JoinToken, out: str | None, file: IO[bytes] | None
) -> None:
    """The token's text, on standard output or in the `file` at `out`."""
    from housecall import tokens

    text = tokens.write(token)
    if file:
        file.write(text.encode() + b"\n")
        file.flush()
    facts = {
        "token_id": tokens.token_id(token),
        "name": token.name,
        "expires_at": token.expires_at.ToJsonString(),
    }
    if settings.output == "json":
        print_json({**facts, **({"file": out} if out else {"token": text})})
        return
    click.echo(f"wrote it to {out}" if out else text)
    settings.note(f"join token {facts['token_id']} for {token.name}, until {facts['expires_at']}")
    program = "housecall-agent" if token.role == pb.ROLE_SITE else "housecall"
    settings.next(f"{program} enroll --token {'@' + out if out else 'TOKEN'}")


def name_digest(text: str) -> str:
    """A subject's digest where the thing is nothing but its name."""
    from housecall.statement import digest

    return digest(text.encode())
