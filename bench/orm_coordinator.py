"""The baseline of `bench.statements`: `python -m bench.orm_coordinator serve ...`.

It is the coordinator's own program, but for `Ledger.Append`: each call has an ORM session and a
transaction of its own, as an ordinary servicer has. Signature, rules, rows, the ledger's entry and
tree nodes, full synchronisation and receipt are the same. The signature is checked and the receipt
made outside the lock, which keeps the ledger's indices in order and SQLite's writers from finding
each other's locks; tree nodes, which never change, are kept in memory.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from unittest import mock

import grpc

from coordinator.__main__ import main
from coordinator.caller import Caller, current_caller
from coordinator.ledger import Ledger
from coordinator.models import LedgerEntry, LedgerNode, News
from coordinator.notary import Notary
from coordinator.rules import RULES, Effect, Fact, check
from coordinator.servicers.ledger import LedgerServicer
from coordinator.store import Store, Writer
from housecall import merkle, statement
from housecall.errors import Kind, Refusal
from housecall.v1 import ledger_pb2 as pb

log = logging.getLogger(__name__)

_lock = threading.Lock()


@dataclass(frozen=True)
class OrmAppend:
    """Appends an envelope in one ORM session and transaction."""

    store: Store
    ledger: Ledger
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def append(self, envelope: bytes, caller: Caller) -> pb.AppendResponse:
        with contextlib.closing(self.store.writer()) as writer:
            opened = self._verify(writer, envelope, caller)
            check(opened)
            with _lock:
                writer.end()
                writer.begin()
                index, thing_id = self._known(writer, opened) or self._write(
                    writer, envelope, opened, caller
                )
            size = index + 1
            get = partial(self._node, writer)
            receipt = self.ledger.receipt(index, size, get, self.ledger.checkpoint(size, get))
        log.info(
            "accepted kind=%s index=%d caller=%s id=%s", opened.kind, index, caller.name, thing_id
        )
        return pb.AppendResponse(receipt=receipt, id=thing_id)

    def _verify(self, writer: Writer, envelope: bytes, caller: Caller) -> statement.Statement:
        participant = writer.participant(caller.name)
        if participant.revoked_index is not None:
            raise Refusal(Kind.NOT_ALLOWED, "REVOKED", f"{caller.name} is revoked")
        return statement.verify(envelope, participant.signing_key)

    def _known(self, writer: Writer, opened: statement.Statement) -> tuple[int, str] | None:
        entry = writer.entry_by_digest(opened.envelope_digest)
        return (entry.ledger_index, entry.thing_id) if entry else None

    def _node(self, writer: Writer, level: int, number: int) -> bytes:
        """From memory: a complete subtree never changes."""
        if (level, number) not in self.nodes:
            self.nodes[level, number] = writer.node(level, number)
        return self.nodes[level, number]

    def _write(
        self, writer: Writer, envelope: bytes, opened: statement.Statement, caller: Caller
    ) -> tuple[int, str]:
        fact = Fact(opened, caller, writer.tree_size(), datetime.now(UTC))
        effect = RULES[opened.kind](writer, opened.predicate, fact)
        leaf = merkle.leaf_hash(envelope)
        made = merkle.new_nodes(fact.index, leaf, partial(self._node, writer))
        for level, number, value in made:
            writer.session.add(LedgerNode(level=level, number=number, hash=value))
        for site in effect.concerns:
            writer.session.add(News(site=site, ledger_index=fact.index))
        enrolled = writer.participant(caller.name).enrolled_index
        writer.session.add(_entry(envelope, fact, effect, enrolled))
        writer.commit()
        self.nodes.update({(level, number): value for level, number, value in made})
        return fact.index, effect.id


def _entry(envelope: bytes, fact: Fact, effect: Effect, enrolment_index: int) -> LedgerEntry:
    return LedgerEntry(
        ledger_index=fact.index,
        envelope_digest=fact.statement.envelope_digest,
        kind=fact.statement.kind,
        signer=fact.caller.name,
        enrolment_index=enrolment_index,
        thing_id=effect.id,
        accepted_at=fact.at,
        envelope=envelope,
    )


class OrmLedgerServicer(LedgerServicer):
    """Sites' statements go the ORM's way; everybody else's, few in number, to the notary."""

    def __init__(self, store: Store, ledger: Ledger, notary: Notary) -> None:
        super().__init__(store, ledger, notary)
        self._orm = OrmAppend(store, ledger)

    def Append(  # type: ignore[override]  # in a thread: it asks the store itself
        self, request: pb.AppendRequest, context: grpc.ServicerContext
    ) -> pb.AppendResponse:
        return self._orm.append(request.envelope, current_caller())


if __name__ == "__main__":
    with mock.patch("coordinator.server.LedgerServicer", OrmLedgerServicer):
        main()
