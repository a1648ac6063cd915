"""Statements without a network: a founded coordinator's own, straight to a notary of its store."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from coordinator.caller import Caller, CallerRole
from coordinator.founding import House
from housecall import statement
from housecall.identity import spiffe_id
from housecall.times import stamp
from housecall.v1 import statements_pb2 as pb


@dataclass(frozen=True)
class Scribe:
    """Signs as the coordinator itself, which may issue join tokens."""

    house: House

    @property
    def caller(self) -> Caller:
        return Caller(self.house.name, CallerRole.OPERATOR, "", datetime.now(UTC))

    def envelope(self) -> bytes:
        """A statement that no other equals: a join token for a name of its own."""
        token_id = secrets.token_hex(8)
        said = pb.JoinTokenIssued(
            token_id=token_id,
            name=spiffe_id(self.house.trust_domain, "site", f"s-{token_id}"),
            role=pb.ROLE_SITE,
            expires_at=stamp(datetime.now(UTC) + timedelta(hours=1)),
        )
        subject = {"join key": statement.digest(token_id.encode())}
        return statement.sign(statement.build(said, subject), self.house.signing_key)
