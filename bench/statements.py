"""Durable signed statements a second: streams from 50 agents against unary calls, one ORM
transaction each, on the same store.

Both sides do the same work for a statement: mutual TLS, signature, rule, ledger entry with its
tree nodes, rows, full synchronisation, receipt with inclusion proof and signed checkpoint.
The baseline differs in what the design chose: a unary call a statement, its own transaction.
"""

from __future__ import annotations

import itertools
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from bench.figure import figure
from coordinator import notary as notary_module
from coordinator.authority import CertificateAuthority
from coordinator.caller import Caller, CallerRole, current_caller
from coordinator.fleet import Fleet
from coordinator.ledger import Batch
from coordinator.models import LedgerEntry, LedgerNode, News
from coordinator.rules import RULES, Fact
from coordinator.servicers.ledger import LedgerServicer
from coordinator.store import Reader
from housecall import merkle, statement
from housecall.times import stamp
from housecall.v1 import fleet_pb2, fleet_pb2_grpc, ledger_pb2, ledger_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.world import (
    PREPARATION_CONFIG,
    RELEASER,
    Party,
    World,
    register_container,
    sha,
    world,
)

AGENTS = 50
EACH = 40
ROUNDS = 3


def envelopes(party: Party, preparation: pb.Pin, start: int, count: int) -> list[bytes]:
    """Signed registrations of datasets `start` and on."""
    made = []
    for number in range(start, start + count):
        dataset_id = f"{party.identity.short_name}/{number}"
        said = pb.DatasetRegistered(
            dataset_id=dataset_id,
            name="bench",
            preparation=preparation,
            raw_fingerprint=sha(dataset_id),
            releaser=RELEASER,
        )
        payload = statement.build(said, {f"dataset {dataset_id}": said.raw_fingerprint})
        made.append(statement.sign(payload, party.identity.signing_key))
    return made


def stream(party: Party, batch: list[bytes], begin: threading.Barrier) -> None:
    """One agent: everything submitted on one stream; done when every receipt is there."""
    outgoing: queue.Queue[fleet_pb2.AgentMessage | None] = queue.Queue()
    hello = fleet_pb2.Hello(local_time=stamp(datetime.now(UTC)))
    outgoing.put(fleet_pb2.AgentMessage(hello=hello))
    incoming = fleet_pb2_grpc.FleetStub(party.channel).Connect(iter(outgoing.get, None))
    next(iter(incoming))
    begin.wait()
    for envelope in batch:
        outgoing.put(fleet_pb2.AgentMessage(submit=fleet_pb2.Submit(envelope=envelope)))
    missing = len(batch)
    for message in incoming:
        kind = message.WhichOneof("message")
        assert kind != "refused", message
        missing -= kind == "receipted"
        if not missing:
            break
    outgoing.put(None)


def unary(party: Party, batch: list[bytes], begin: threading.Barrier) -> None:
    stub = ledger_pb2_grpc.LedgerStub(party.channel)
    begin.wait()
    for envelope in batch:
        stub.Append(ledger_pb2.AppendRequest(envelope=envelope))


def rate(parties: list[Party], batches: list[list[bytes]], act: Callable[..., None]) -> float:
    """Statements a second from the moment that all are connected."""
    begin = threading.Barrier(len(parties) + 1)
    with ThreadPoolExecutor(len(parties)) as pool:
        futures = [pool.submit(act, *pair, begin) for pair in zip(parties, batches, strict=True)]
        begin.wait()
        began = time.perf_counter()
        for future in futures:
            future.result()
        return sum(map(len, batches)) / (time.perf_counter() - began)


class OrmNotary:
    """The baseline's writer: one ORM session and one transaction a call, serialised by a lock."""

    _lock = threading.Lock()

    def __init__(self, real: notary_module.Notary) -> None:
        self._real = real

    def append(self, envelope: bytes, caller: Caller) -> notary_module.Accepted:
        real = self._real
        with self._lock, real._store.read() as reader:
            job = notary_module._Job(envelope, caller, None)  # type: ignore[arg-type]
            opened = real._verify(reader, job)
            batch = Batch(reader)
            assert batch.find(opened.envelope_digest) is None
            fact = Fact(opened, caller, batch.size, datetime.now(UTC))
            effect = RULES[opened.kind](reader, opened.predicate, fact)
            self._write(reader, batch, envelope, fact, effect)
            reader.commit()
            checkpoint = real._ledger.checkpoint(fact.index + 1, reader.node)
            receipt = real._ledger.receipt(fact.index, fact.index + 1, reader.node, checkpoint)
        return notary_module.Accepted(receipt, opened.kind, fact.index, effect, effect.id)

    def _write(
        self, reader: Reader, batch: Batch, envelope: bytes, fact: Fact, effect: Any
    ) -> None:
        leaf = merkle.leaf_hash(envelope)
        for level, number, value in merkle.new_nodes(fact.index, leaf, batch.node):
            reader.session.add(LedgerNode(level=level, number=number, hash=value))
        for site in effect.concerns:
            reader.session.add(News(site=site, ledger_index=fact.index))
        reader.session.add(
            LedgerEntry(
                ledger_index=fact.index,
                envelope_digest=fact.statement.envelope_digest,
                kind=fact.statement.kind,
                signer=fact.caller.name,
                thing_id=effect.id,
                accepted_at=fact.at,
                envelope=envelope,
            )
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as made:
        parties = [made.join(f"site-{number}", pb.ROLE_SITE) for number in range(AGENTS)]
        owner = made.join("owner", pb.ROLE_PERSON)
        preparation = register_container(
            owner, "prep", pb.CONTAINER_ROLE_PREPARATION, PREPARATION_CONFIG
        )
        starts = itertools.count(1, EACH)
        streams, unaries = [], []
        for _ in range(ROUNDS):
            for rates, act, switch in (
                (streams, stream, None),
                (unaries, unary, OrmNotary),
            ):
                start = next(starts)
                batches = [envelopes(party, preparation, start, EACH) for party in parties]
                with switched(switch):
                    rates.append(rate(parties, batches, act))
    best, base = sorted(streams)[ROUNDS // 2], sorted(unaries)[ROUNDS // 2]
    values = {
        "streams_per_s": best,
        "unary_orm_per_s": base,
        "agents": AGENTS,
        "statements_a_round": AGENTS * EACH,
    }
    figure("statements", best / base, 3.0, True, values)


class switched:  # noqa: N801 - reads as a verb where it is used
    """Within it, Append goes through another notary."""

    def __init__(self, other: Callable[[notary_module.Notary], Any] | None) -> None:
        self._other = other

    def __enter__(self) -> None:
        self._append = LedgerServicer.Append
        other = self._other
        if other is None:
            return

        def append(self: LedgerServicer, request: Any, context: Any) -> Any:
            accepted = other(self._notary).append(request.envelope, current_caller())
            return ledger_pb2.AppendResponse(receipt=accepted.receipt, id=accepted.id)

        LedgerServicer.Append = append  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        LedgerServicer.Append = self._append  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
