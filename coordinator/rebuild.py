"""Rebuilding: the tables are a projection of the ledger, so its entries make them again.

`rebuild` replays every entry through the rules into an empty store; `differences` compares two
stores table by table. `housecall-coordinator check` does both, against the store in use.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, select
from sqlmodel import SQLModel

from coordinator.caller import ROLES, Caller, CallerRole
from coordinator.founding import first_row
from coordinator.ledger import Batch
from coordinator.models import LedgerEntry, Participant
from coordinator.rules import RULES, Fact
from coordinator.store import Store, Writer
from housecall import statement
from housecall.v1 import statements_pb2 as pb

PAGE = 500


def rebuild(source: Store, target: Store) -> int:
    """Replay the ledger of `source` into the empty `target`; gives the number of entries."""
    writer = target.writer()
    count = 0
    while entries := _page(source, count):
        batch = Batch(writer, [])
        for entry in entries:
            _replay(writer, batch, entry)
        batch.flush()
        writer.commit()
        writer.end()
        count += len(entries)
    writer.close()
    return count


def differences(one: Store, other: Store) -> list[str]:
    """One line a table whose rows differ."""
    found = []
    for table in SQLModel.metadata.sorted_tables:
        rows, others = (_rows(store, table) for store in (one, other))
        if rows != others:
            found.append(f"{table.name}: {len(rows ^ others)} rows differ")
    return found


def _page(source: Store, start: int) -> list[LedgerEntry]:
    with source.read() as reader:
        return list(reader.entries(start, PAGE))


def _replay(writer: Writer, batch: Batch, entry: LedgerEntry) -> None:
    """The rule decides again, on the same facts."""
    opened = statement.unverified(entry.envelope)
    if entry.ledger_index == 0:
        assert isinstance(opened.predicate, pb.ParticipantEnrolled)
        writer.add(first_row(opened.predicate))
        thing_id, concerns = entry.signer, frozenset[str]()
    else:
        fact = Fact(opened, _caller(writer, opened.predicate, entry), batch.size, entry.accepted_at)
        effect = RULES[opened.kind](writer, opened.predicate, fact)
        thing_id, concerns = effect.id, effect.concerns
    batch.append(
        entry.envelope,
        opened,
        signer=entry.signer,
        enrolment_index=writer.participant(entry.signer).enrolled_index,
        thing_id=thing_id,
        accepted_at=entry.accepted_at,
        concerns=concerns,
    )


def _caller(writer: Writer, said: Any, entry: LedgerEntry) -> Caller:
    if isinstance(said, pb.ParticipantEnrolled):
        return Caller(f"join/{said.token_id}", CallerRole.JOINER, "", entry.accepted_at)
    row = writer.get(Participant, entry.signer, "participant")
    role = ROLES[pb.Role.ValueType(row.role)]
    return Caller(row.name, role, row.tls_key_digest, entry.accepted_at)


def _rows(store: Store, table: Table) -> set[tuple[Any, ...]]:
    with store.engine.connect() as connection:
        return {tuple(row) for row in connection.execute(select(table))}
