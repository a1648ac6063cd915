"""How quickly an agent that is 10,000 entries behind is at the newest one.

The entries are statements that concern its site, put into the ledger by the notary. The agent is
the real one, in this process, with all its rooms, its journal on disk, and an engine that nobody
asks for work; the coordinator is a process of its own. The clock runs from the start of the agent's
rooms, dial and Hello included, until its journal's cursor is past the newest entry.

The floor is the same entries read by the same site over a channel of the same kind, in pages of
1,000 (`Ledger.ListEntries`), and nothing kept. How long SQLite itself takes to hand them over is in
the values. Alternating, medians; each round begins with a journal that knows what the site signed,
as one that was never lost does.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from agent.journal import Journal
from agent.records import Outgoing
from agent.server import Agent
from agent.settings import Settings
from bench.bulk import Bulk, bulk
from bench.coordinators import Founded, founded, serving
from bench.figure import figure, progress
from bench.ordered import registration
from bench.process import cpu_seconds
from coordinator.notary import Accepted
from housecall import client, statement
from housecall.identity import Identity
from housecall.v1 import ledger_pb2, ledger_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from tests.agent.fake_engine import FakeEngine
from tests.coordinator.world import PREPARATION_CONFIG, register_container

BEHIND = 10_000
PAGE = 1_000
ROUNDS = 5
HEARTBEAT_S = 0.25
"""At rest the cursor is written with the next heartbeat: so much may be measured too much."""
CAUGHT_UP_S = 120.0


@dataclass
class Behind:
    """The site, the ledger that it has not seen, and what was measured so far."""

    at: Founded
    site: Identity
    stated: list[Accepted]
    pid: int
    folder: Path
    times: dict[str, list[float]] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        return self.stated[-1].index

    def note(self, **seconds: float) -> None:
        for name, spent in seconds.items():
            self.times.setdefault(name, []).append(spent)


def main() -> None:
    """Measure in a temporary folder and print the figure."""
    with tempfile.TemporaryDirectory(prefix="housecall-bench-") as folder:
        at = founded(Path(folder, "coordinator"))
        with bulk(at) as made:
            site, stated = _fall_behind(made)
        with serving(at) as pid:
            behind = Behind(at, site, stated, pid, Path(folder))
            for number in range(ROUNDS + 1):
                _catch_up(behind, Path(folder, f"site-{number}"))
                _read_pages(behind)
                _read_file(behind)
                spent_s = behind.times["catchup_s"][-1]
                progress(f"catchup: {BEHIND / spent_s:.0f} entries a second")
    values = {name: statistics.median(spent[1:]) for name, spent in behind.times.items()}
    ratio = values["catchup_s"] / values["pages_s"]
    values |= {"entries": BEHIND, "entries_per_s": BEHIND / values["catchup_s"], "rounds": ROUNDS}
    figure("catchup", ratio, 4.0, False, values)


def _fall_behind(made: Bulk) -> tuple[Identity, list[Accepted]]:
    """A site, and the entries that concern it."""
    (owner,) = made.join(["owner"], pb.ROLE_PERSON)
    (site,) = made.join(["north"], pb.ROLE_SITE)
    role = pb.CONTAINER_ROLE_PREPARATION
    preparation = register_container(owner, "prep", role, PREPARATION_CONFIG)
    stated = made.state(
        (site, registration(f"north/{number}", preparation)) for number in range(1, BEHIND + 1)
    )
    return site.identity, stated


def _catch_up(behind: Behind, folder: Path) -> None:
    settings = Settings(
        state_dir=folder,
        socket=folder / "run" / "agent.sock",
        disk_reserve_bytes=0,
        heartbeat_s=HEARTBEAT_S,
    )
    behind.site.save(settings.identity_dir)
    agent = Agent(settings, lambda _: FakeEngine())
    _remember(agent.journal, behind.stated)
    server_cpu, own_cpu = cpu_seconds(behind.pid), time.process_time()
    began = time.perf_counter()
    with agent:
        _await_cursor(agent, behind.newest + 1)
        behind.note(
            catchup_s=time.perf_counter() - began,
            agent_cpu_s=time.process_time() - own_cpu,
            server_cpu_s=cpu_seconds(behind.pid) - server_cpu,
        )


def _remember(journal: Journal, stated: list[Accepted]) -> None:
    with journal.transaction():
        for number, each in enumerate(stated, start=1):
            about, digest = f"dataset:{number}", statement.digest(each.envelope)
            journal.add_outgoing(Outgoing(digest, each.envelope, each.kind, about, each.id))
            journal.settle(digest, each.receipt.SerializeToString(), each.id)


def _await_cursor(agent: Agent, cursor: int) -> None:
    deadline = time.monotonic() + CAUGHT_UP_S
    while (at := int(agent.journal.fact("cursor") or 0)) < cursor:
        if time.monotonic() > deadline:
            raise TimeoutError(f"cursor at {at} of {cursor} after {CAUGHT_UP_S:.0f} s")
        time.sleep(0.005)


def _read_pages(behind: Behind) -> None:
    """As somebody who has all the time to ask again for each page."""
    first = behind.newest + 1 - BEHIND
    began, server_cpu = time.perf_counter(), cpu_seconds(behind.pid)
    envelopes = 0
    with client.connect(behind.site) as channel, behind.site.refusals():
        stub = ledger_pb2_grpc.LedgerStub(channel)
        for start in range(first, behind.newest + 1, PAGE):
            request = ledger_pb2.ListEntriesRequest(start=start, count=PAGE)
            envelopes += sum(bool(each.envelope) for each in stub.ListEntries(request).entries)
    assert envelopes == BEHIND, f"expected {BEHIND} envelopes, got {envelopes}"
    behind.note(
        pages_s=time.perf_counter() - began,
        pages_server_cpu_s=cpu_seconds(behind.pid) - server_cpu,
    )


def _read_file(behind: Behind) -> None:
    file = behind.at.settings.state_dir / "coordinator.db"
    query = (
        "SELECT e.ledger_index, e.envelope FROM news n JOIN ledger_entry e USING (ledger_index) "
        "WHERE n.site = ? ORDER BY 1"
    )
    began = time.perf_counter()
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        rows = db.execute(query, (behind.site.name,)).fetchall()
    assert len(rows) == BEHIND, f"expected {BEHIND} rows, got {len(rows)}"
    behind.note(sqlite_s=time.perf_counter() - began)
