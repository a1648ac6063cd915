"""What is done with an envelope before it has the notary's turn to append: nothing here asks the
store. Opening it and checking what it says may take seconds, which would hold up every coordinator
on the database."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coordinator.caller import ROLES, Caller, CallerRole
from coordinator.models import Participant
from coordinator.rules import check
from coordinator.rules.bounds import check_bounds
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.rpc import refusal_of
from housecall.statement import Statement, Wrapped
from housecall.v1 import statements_pb2 as pb

NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # as JSON spells it


@dataclass(frozen=True)
class Opened:
    """A statement, the key that its signature was checked with (none = it was not yet), and what
    is wrong with what it says: that counts unless the ledger has it already."""

    statement: Statement
    wrapped: Wrapped
    checked_with: bytes
    refusal: Refusal | None

    def check_caller(self, row: Participant, caller: Caller) -> None:
        """Against the caller's row, which may have changed since the edge read it."""
        if row.revoked_index is not None:
            raise Refusal(Kind.NOT_ALLOWED, "REVOKED", f"{row.name} is revoked")
        role = ROLES[pb.Role.ValueType(row.role)]
        if role is not caller.role:  # a replay knows the row alone
            raise Refusal(
                Kind.NOT_ALLOWED,
                "NOT_ENTITLED",
                f"{row.name} called as {caller.role.value}, and is {role.value} by now: "
                "state it again",
            )
        if row.signing_key != self.checked_with:
            self.wrapped.check(row.signing_key)


def open_envelope(envelope: bytes, caller: Caller) -> Opened:
    """The signature is checked before anything inside is read, where the caller's key is known; a
    joiner's is inside. Refuses what no look at the store would make acceptable."""
    wrapped = statement.unwrap(envelope)
    if caller.signing_key:
        wrapped.check(caller.signing_key)
    opened, key = wrapped.open(), caller.signing_key
    if caller.role is CallerRole.JOINER:
        said = opened.predicate
        if not isinstance(said, pb.ParticipantEnrolled):
            raise Refusal(
                Kind.NOT_ALLOWED, "NOT_ENTITLED", "a join token is good for enrolment only"
            )
        key = said.signing_key
        wrapped.check(key)
    _check_storable(opened)
    return Opened(opened, wrapped, key, _problem(opened))


def _problem(opened: Statement) -> Refusal | None:
    try:
        check_bounds(opened)
        check(opened)
    except Exception as error:
        return refusal_of(error)
    return None


def _check_storable(opened: Statement) -> None:
    """PostgreSQL's texts cannot hold a NUL; so no store's may."""
    if NUL.search(opened.payload):
        raise Refusal(
            Kind.INVALID, "VALUE_UNSTORABLE", f"{opened.kind}: expected texts without NUL"
        )
