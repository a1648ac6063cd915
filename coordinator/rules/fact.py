"""What a rule is given and what it answers.

A rule reads, then either raises `Refusal` or adds the rows that follow from the statement and
returns its `Effect`. It checks everything before it adds anything, so that a refusal in the middle
of a batch leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.caller import Caller, CallerRole
from coordinator.store import Writer
from housecall.errors import Kind, Refusal
from housecall.statement import Statement


@dataclass(frozen=True)
class Fact:
    """A verified statement of `caller`, about to become entry `index`. `is_new`: nobody accepted it
    yet, so that what earlier versions took may be refused; a ledger that is replayed has it."""

    statement: Statement
    caller: Caller
    index: int
    at: datetime
    is_new: bool = False


@dataclass(frozen=True)
class Effect:
    """The id of what was made or changed, and the sites that have to hear of it."""

    id: str
    concerns: frozenset[str] = frozenset()


MOST_CHARACTERS = 200
MOST_DESCRIPTION = 10_000
Rule = Callable[[Writer, Any, Fact], Effect]


def require_role(fact: Fact, *roles: CallerRole) -> None:
    if fact.caller.role not in roles:
        wanted = " or ".join(role.value for role in roles)
        raise not_entitled(fact, f"expected a {wanted}, got a {fact.caller.role.value}")


def not_entitled(fact: Fact, why: str) -> Refusal:
    return Refusal(
        Kind.NOT_ALLOWED,
        "NOT_ENTITLED",
        f"{fact.caller.name} is not entitled to state {fact.statement.kind}: {why}",
    )


def invalid(code: str, message: str) -> Refusal:
    return Refusal(Kind.INVALID, code, message)


def conflict(code: str, message: str) -> Refusal:
    return Refusal(Kind.CONFLICT, code, message)


def not_ready(code: str, message: str) -> Refusal:
    return Refusal(Kind.NOT_READY, code, message)


def require_text(predicate: Any, fields: Iterable[str]) -> None:
    """Named fields must not be blank, nor so long that lists of them break."""
    for field in fields:
        value = getattr(predicate, field)
        where = f"{predicate.DESCRIPTOR.name}.{field}"
        if not value.strip():
            raise invalid("FIELD_MISSING", f"{where}: expected a text, got none")
        if len(value) > MOST_CHARACTERS:
            raise invalid(
                "FIELD_TOO_LONG",
                f"{where}: expected at most {MOST_CHARACTERS} characters, got {len(value)}",
            )


def limit_text(predicate: Any, fields: Iterable[str]) -> None:
    """Texts for people: some pages at most."""
    for field in fields:
        length = len(getattr(predicate, field))
        if length > MOST_DESCRIPTION:
            raise invalid(
                "FIELD_TOO_LONG",
                f"{predicate.DESCRIPTOR.name}.{field}: expected at most {MOST_DESCRIPTION} "
                f"characters, got {length}",
            )


def require_digest(predicate: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(predicate, field)
        if not is_digest(value):
            raise invalid(
                "DIGEST_INVALID",
                f"{predicate.DESCRIPTOR.name}.{field}: expected sha256:<64 hex digits>, got "
                f"{value[:80]!r}",
            )


def is_digest(value: str) -> bool:
    text = value.removeprefix("sha256:")
    return len(value) == 71 and len(text) == 64 and not text.strip("0123456789abcdef")
