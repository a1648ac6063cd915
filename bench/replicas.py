"""Durable signed statements a second on PostgreSQL: two coordinator replicas against one.

One PostgreSQL server, which waits for the disk, with a database a side: on one side a coordinator
serves alone, on the other two serve one store, each with half of the agents. All else is the same:
50 agents in two client processes, everything signed beforehand and sent on streams, rounds
interleaved, the median counts, from the moment that all are connected to the last receipt.

Appends take turns in the database, signatures and rules included: replicas share what is done
outside the turn (TLS, streams, JSON, logs), where cores are free for them. Clients, PostgreSQL and
replicas have the same cores here: where these are busy, two cannot be quicker than one. The bound
says that the second one costs at most 30 %.

At the end the stores are asked: each statement that was sent is in the ledger once, where its
receipt said, and so is its dataset. One round is sent again, to the other replica: same receipts.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from bench.bulk import bulk
from bench.clients import Clients, Indices, Round, clients
from bench.coordinators import founded, serving
from bench.figure import figure, progress
from bench.process import cpu_seconds, family_cpu_seconds
from housecall.v1 import statements_pb2 as pb
from tests import postgres
from tests.coordinator.world import PREPARATION_CONFIG, free_port, register_container

AGENTS = 50
EACH = 40
ROUNDS = 4
CLIENTS = 2
DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}


@dataclass
class Side:
    """One of the two: its database, its replicas, its sites, and what was measured so far."""

    database: str
    addresses: Sequence[str]
    pids: Sequence[int]
    folders: Sequence[Path]
    preparation: pb.Pin
    sent: Indices = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    server_cpu: list[float] = field(default_factory=list)
    database_cpu: list[float] = field(default_factory=list)

    def work(self, number: int, shift: int = 0) -> Round:
        """Half of the sites dial each of two; `shift` gives them to the other one."""
        dialled = [
            (folder, self.addresses[(at // CLIENTS + shift) % len(self.addresses)])
            for at, folder in enumerate(self.folders)
        ]
        return Round(dialled, self.preparation, 1 + number * EACH, EACH)


def main() -> None:
    """Measure in temporary folders and print the figure."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="housecall-bench-")))
        stack.enter_context(mock.patch.dict(postgres.SETTINGS, DURABLE))
        server = stack.enter_context(postgres.server())
        one, two = (
            stack.enter_context(_side(folder / str(replicas), server, replicas))
            for replicas in (1, 2)
        )
        load = stack.enter_context(clients(CLIENTS))
        for number in range(ROUNDS + 1):
            for side in (one, two):
                _round(side, load, server, number)
        _again(two, load)
        for side in (one, two):
            _check(side, server)
    _report(one, two)


@contextlib.contextmanager
def _side(folder: Path, server: postgres.Server, replicas: int) -> Iterator[Side]:
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(server.database())
        at = founded(folder, server.url(database))
        with bulk(at) as made:
            (owner,) = made.join(["owner"], pb.ROLE_PERSON)
            sites = made.join([f"site-{number}" for number in range(AGENTS)], pb.ROLE_SITE)
            role = pb.CONTAINER_ROLE_PREPARATION
            preparation = register_container(owner, "prep", role, PREPARATION_CONFIG)
        folders = [folder / "sites" / site.identity.short_name for site in sites]
        for site, place in zip(sites, folders, strict=True):
            site.identity.save(place)
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(replicas)]
        pids = [stack.enter_context(serving(at, address=address)) for address in addresses]
        yield Side(database, addresses, pids, folders, preparation)


def _round(side: Side, load: Clients, server: postgres.Server, number: int) -> None:
    load.ready(side.work(number))
    assert server.process is not None
    began, cpu = time.perf_counter(), sum(map(cpu_seconds, side.pids))
    database_cpu = family_cpu_seconds(server.process.pid)
    indices = load.go()
    statements = AGENTS * EACH
    side.rates.append(statements / (time.perf_counter() - began))
    side.server_cpu.append((sum(map(cpu_seconds, side.pids)) - cpu) / statements)
    spent = family_cpu_seconds(server.process.pid) - database_cpu
    side.database_cpu.append(spent / statements)
    assert len(indices) == statements, f"expected {statements} receipts, got {len(indices)}"
    side.sent |= indices
    progress(f"replicas: {len(side.pids)}, {side.rates[-1]:.0f} statements a second")


def _again(side: Side, load: Clients) -> None:
    """The last round, once more, each agent at the other replica."""
    load.ready(side.work(ROUNDS, shift=1))
    for envelope_digest, index in load.go().items():
        assert side.sent[envelope_digest] == index, f"{envelope_digest} was counted twice"


def _check(side: Side, server: postgres.Server) -> None:
    with server.connect(side.database) as connection:
        entries = connection.execute(
            "SELECT ledger_index, kind, envelope_digest FROM ledger_entry ORDER BY 1"
        ).fetchall()
        datasets = connection.execute("SELECT id FROM dataset").fetchall()
    assert [entry[0] for entry in entries] == list(range(len(entries))), "the ledger has gaps"
    kept = [(each, index) for index, kind, each in entries if kind == "DatasetRegistered"]
    sent = sorted(side.sent.items())
    assert sorted(kept) == sent, f"{len(sent)} statements were sent, {len(kept)} are in the ledger"
    assert len(datasets) == len(sent), f"{len(sent)} datasets were sent, there are {len(datasets)}"


def _report(one: Side, two: Side) -> None:
    values: dict[str, float] = {"agents": AGENTS, "rounds": ROUNDS, "statements": len(two.sent)}
    for name, side in (("one", one), ("two", two)):
        values[f"{name}_per_s"] = statistics.median(side.rates[1:])
        values[f"{name}_replicas_cpu_s_each"] = statistics.median(side.server_cpu[1:])
        values[f"{name}_postgres_cpu_s_each"] = statistics.median(side.database_cpu[1:])
    figure("replicas", values["two_per_s"] / values["one_per_s"], 0.7, True, values)
