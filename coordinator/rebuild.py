"""Rebuilding: the tables are a projection of the ledger, so its entries make them again.

`rebuild` replays every entry through the rules into an empty store. `check_store` does so in memory
and compares, within one moment of the store in use; `repair` puts what was rebuilt in its place.
The rules alone decide: the bounds of `rules/bounds.py` are for what is new.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import NoResultFound

from coordinator.caller import ROLES, Caller, CallerRole
from coordinator.founding import first_row
from coordinator.ledger import Batch
from coordinator.models import LedgerEntry, Participant
from coordinator.rules import RULES, Fact, check
from coordinator.store import Reader, Store, Writer
from coordinator.store.copy import copy, differences
from housecall import merkle, statement
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb

PAGE = 500
Progress = Callable[[int, int], None]
"""Called with the number of entries that are done, and of all."""


@dataclass(frozen=True)
class Checked:
    """A store against its ledger: how many entries, their root, and what differs."""

    size: int
    root: bytes
    differences: list[str]


def silent(_done: int, _all: int) -> None:
    """Nobody waits to hear how far it is."""


def check_store(store: Store, progress: Progress = silent, *, signatures: bool = False) -> Checked:
    """Rebuild in memory and compare; refuses LEDGER_DAMAGED where the entries do not replay."""
    store.check_file()
    with contextlib.closing(Store.create("sqlite://")) as rebuilt, store.read() as reader:
        reader.take_time()
        size = rebuild(reader, rebuilt, progress, signatures=signatures)
        with rebuilt.read() as fresh:
            return Checked(size, merkle.root(size, fresh.node), differences(reader, fresh))


def repair(store: Store, progress: Progress = silent) -> Checked:
    """Make every table again from the entries, in one transaction beside which nobody appends.

    Gives what had differed. The entries are believed only where each carries its signer's signature
    and all of them give the root of the tree that is stored; refuses LEDGER_DAMAGED otherwise.
    """
    store.check_file()
    writer = store.writer()
    with (
        contextlib.closing(Store.create("sqlite://")) as rebuilt,
        contextlib.closing(writer),
        store.failures(),
    ):
        writer.begin()
        writer.take_time()
        size = rebuild(writer, rebuilt, progress, signatures=True)
        with rebuilt.read() as fresh:
            root = merkle.root(size, fresh.node)
            check_root(writer, size, root)
            found = differences(writer, fresh)
            if found:
                copy(fresh, writer)
        writer.commit()
    return Checked(size, root, found)


def rebuild(
    source: Reader, target: Store, progress: Progress = silent, *, signatures: bool = False
) -> int:
    """Replay the ledger of `source` into the empty `target`; gives the number of entries."""
    size, count = source.tree_size(), 0
    while entries := source.entries(count, PAGE):
        replay(target, entries, signatures=signatures)
        count += len(entries)
        progress(count, size)
    return count


def replay(target: Store, entries: Sequence[LedgerEntry], *, signatures: bool) -> None:
    """Append to `target` the entries that come next, in one transaction, each by its rule."""
    with contextlib.closing(target.writer()) as writer:
        writer.begin()
        batch = Batch(writer, [])
        for entry in entries:
            _append(writer, batch, entry, signatures=signatures)
        batch.flush()
        writer.commit()


def _append(writer: Writer, batch: Batch, entry: LedgerEntry, *, signatures: bool) -> None:
    """The rule decides again, on the same facts."""
    if entry.ledger_index != batch.size:
        raise _damaged(batch.size, "it is missing")
    try:
        opened = statement.unverified(entry.envelope)
        thing_id, concerns = _follow(writer, batch.size, entry, opened)
        signer = writer.participant(entry.signer)
        if signatures:
            statement.verify(entry.envelope, signer.signing_key)
    except (Refusal, AssertionError, KeyError, ValueError) as error:
        raise _damaged(entry.ledger_index, str(error)) from error
    batch.append(
        entry.envelope,
        opened,
        signer=entry.signer,
        enrolment_index=signer.enrolled_index,
        thing_id=thing_id,
        accepted_at=entry.accepted_at,
        concerns=concerns,
    )


def _follow(
    writer: Writer, index: int, entry: LedgerEntry, opened: statement.Statement
) -> tuple[str, frozenset[str]]:
    """The id and the sites concerned that follow from an entry."""
    if index == 0:
        assert isinstance(opened.predicate, pb.ParticipantEnrolled)
        writer.add(first_row(opened.predicate))
        return entry.signer, frozenset()
    fact = Fact(opened, _caller(writer, opened.predicate, entry), index, entry.accepted_at)
    check(opened)
    effect = RULES[opened.kind](writer, opened.predicate, fact)
    return effect.id, effect.concerns


def _caller(writer: Writer, said: Any, entry: LedgerEntry) -> Caller:
    if isinstance(said, pb.ParticipantEnrolled):
        return Caller(f"join/{said.token_id}", CallerRole.JOINER, "", entry.accepted_at)
    row = writer.get(Participant, entry.signer, "participant")
    role = ROLES[pb.Role.ValueType(row.role)]
    return Caller(row.name, role, row.tls_key_digest, entry.accepted_at)


def check_root(reader: Reader, size: int, root: bytes) -> None:
    """What was signed and handed out is the stored tree: entries with another root are others, and
    fewer than its leaves are not all. Refuses LEDGER_DAMAGED."""
    leaves = reader.stored_leaves()
    if size != leaves:
        raise _damaged(size, f"expected {leaves} entries as the stored tree has leaves, got {size}")
    try:
        stored = merkle.root(size, reader.node)
    except NoResultFound:
        stored = b""
    if stored != root:
        raise _damaged(size, f"expected root {stored.hex()} as stored, got {root.hex()}")


def _damaged(index: int, why: str) -> Refusal:
    return Refusal(
        Kind.CONFLICT,
        "LEDGER_DAMAGED",
        f"the ledger cannot be replayed at entry {index}: {why}. Nothing was changed: restore a "
        "backup",
    )
