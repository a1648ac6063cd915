"""What the ledger gained: the questions of whoever follows it, past the envelopes where it can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from sqlmodel import col, select

from coordinator.lifecycle import ENDED_EXECUTIONS
from coordinator.models import Execution, LedgerEntry, News
from coordinator.store.reader import Reader

PAGE = 500
"""Entries in one look."""
MOST_NUMBERS = 500
"""In one question: PostgreSQL takes 65,535 parameters, SQLite 32,766."""


class Head(NamedTuple):
    """An entry without its envelope."""

    ledger_index: int
    kind: str
    thing_id: str
    envelope_digest: str


def heads(reader: Reader, start: int, count: int) -> Sequence[Head]:
    query = (
        select(
            LedgerEntry.ledger_index,
            LedgerEntry.kind,
            LedgerEntry.thing_id,
            LedgerEntry.envelope_digest,
        )
        .where(LedgerEntry.ledger_index >= start)
        .order_by(col(LedgerEntry.ledger_index))
        .limit(count)
    )
    return [Head(*row) for row in reader.ask.exec(query)]


def digest_before(reader: Reader, index: int) -> str:
    """Of the envelope in front of `index`; empty where there is none."""
    query = select(LedgerEntry.envelope_digest).where(LedgerEntry.ledger_index == index - 1)
    return reader.ask.exec(query).first() or ""


def concerned(reader: Reader, first: int, last: int) -> Sequence[tuple[int, str]]:
    """(ledger index, site) of the entries from `first` to `last` that concern a site, in order."""
    index = col(News.ledger_index)
    query = select(News.ledger_index, News.site).where(index.between(first, last)).order_by(index)
    return list(reader.ask.exec(query))


def ordered(reader: Reader, head: Head) -> Sequence[tuple[int, str]]:
    """(number, site) of the executions that an ExecutionRequested made: from its thing on."""
    query = (
        select(Execution.id, Execution.site)
        .where(
            col(Execution.id) >= int(head.thing_id),
            Execution.ledger_index == head.ledger_index,
        )
        .order_by(col(Execution.id))
    )
    return list(reader.ask.exec(query))


def not_open(reader: Reader, numbers: Sequence[int]) -> list[int]:
    """Those of executions that ended, or that are not there."""
    number, found = col(Execution.id), set[int]()
    for some in _in_pieces(numbers):
        query = select(Execution.id).where(
            number.in_(some), col(Execution.state).not_in(ENDED_EXECUTIONS)
        )
        found.update(reader.ask.exec(query))
    return [each for each in numbers if each not in found]


def sites_of(reader: Reader, numbers: Iterable[int]) -> Sequence[tuple[int, str]]:
    """(number, site) of executions, each once."""
    found: list[tuple[int, str]] = []
    for some in _in_pieces(numbers):
        query = select(Execution.id, Execution.site).where(col(Execution.id).in_(some))
        found += reader.ask.exec(query.order_by(col(Execution.id)))
    return found


def _in_pieces(numbers: Iterable[int]) -> Iterator[list[int]]:
    distinct = iter(sorted(set(numbers)))
    while some := list(islice(distinct, MOST_NUMBERS)):
        yield some
