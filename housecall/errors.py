"""Refusals: expected, explained noes, and the one table that says what each kind means.

Domain code raises `Refusal`; one interceptor on each side turns it into a `google.rpc.Status`
and back, and the CLI turns its kind into an exit code (docs/errors.md lists every code).
"""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """What sort of no it is; decides the gRPC status and the CLI's exit code."""

    INVALID = "invalid"
    NOT_FOUND = "not found"
    NOT_ALLOWED = "not allowed"
    CONFLICT = "conflict"
    NOT_READY = "not ready"
    EXHAUSTED = "exhausted"
    UNAVAILABLE = "unavailable"
    UNAUTHENTICATED = "unauthenticated"
    INTERNAL = "internal"


class Refusal(Exception):
    """An expected no. `code` is stable (UPPER_SNAKE); the message names the thing, gives
    expected and got, and says what to do next."""

    def __init__(self, kind: Kind, code: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


EXIT_CODES: dict[Kind, int] = {
    Kind.INTERNAL: 1,
    Kind.INVALID: 2,
    Kind.NOT_FOUND: 3,
    Kind.NOT_ALLOWED: 4,
    Kind.CONFLICT: 5,
    Kind.NOT_READY: 6,
    Kind.EXHAUSTED: 7,
    Kind.UNAVAILABLE: 8,
    Kind.UNAUTHENTICATED: 9,
}
"""Exit code of a CLI command that ended with a refusal of that kind."""
