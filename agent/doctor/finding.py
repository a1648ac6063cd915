"""What a check says: how it stands, what was found, and what mends it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from housecall.errors import Kind


class Level(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Verdict:
    """`kind` decides the exit code of a failure; `code` is that of a refusal, where there was one.
    Nothing in it is a secret; paths are those of the machine, never of data."""

    level: Level
    found: str
    fix: str = ""
    kind: Kind | None = None
    code: str = ""


class Skip(Exception):
    """This check makes no sense here; the text says why."""


def ok(found: str) -> Verdict:
    return Verdict(Level.OK, found)


def warn(found: str, fix: str) -> Verdict:
    return Verdict(Level.WARNING, found, fix)


def fail(kind: Kind, found: str, fix: str) -> Verdict:
    return Verdict(Level.FAILED, found, fix, kind)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The first of those that are worst; of checks that were made, not skipped."""
    return max(verdicts, key=lambda each: list(Level).index(each.level))
