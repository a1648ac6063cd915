"""A replica that is stopped, or hears nothing, and is not dead: it serves no agent that another
replica has superseded, not even for the moment in which it wakes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from housecall.v1 import statements_pb2 as pb
from tests import postgres
from tests.coordinator.replicas import Group, Replica, replicas
from tests.coordinator.test_fleet import Agent, order_line, prepared, until
from tests.coordinator.world import Party

LISTENING = """
    SELECT pid FROM pg_stat_activity WHERE datname = %s
    AND query IN ('SELECT pg_notify($1, $2)', 'LISTEN housecall_fleet', 'LISTEN housecall_ledger')
"""


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def database(postgresql: postgres.Server) -> Iterator[str]:
    with postgresql.database() as name:
        yield name


@pytest.fixture
def group(postgresql: postgres.Server, database: str, tmp_path: Path) -> Iterator[Group]:
    with replicas(tmp_path, postgresql.url(database)) as made:
        yield made


def test_a_replica_that_was_stopped_serves_nobody_when_it_wakes(group: Group) -> None:
    north = group.world.join("north", pb.ROLE_SITE)
    carla, _, model = prepared(group.world, north)
    first, second = group
    assert first.process is not None
    older = Agent(first.party(north), session_id="older", cursor=10**6)
    older.next("caught_up")
    with stopped(first.process.pid):
        newer = Agent(second.party(north), session_id="newer", cursor=10**6)
        require_ordered(second.party(carla), model, newer)
    assert set(older.rest()) <= {"superseded"}
    newer.close()


def test_a_replica_that_hears_nothing_passes_nothing_on(
    group: Group, postgresql: postgres.Server, database: str
) -> None:
    """It is alive, accepts the order itself, and does not know of the newer agent."""
    north = group.world.join("north", pb.ROLE_SITE)
    carla, _, model = prepared(group.world, north)
    first, second = group
    ears = ears_of(first, postgresql, database)
    older = Agent(first.party(north), session_id="older", cursor=10**6)
    older.next("caught_up")
    with stopped(ears):
        newer = Agent(second.party(north), session_id="newer", cursor=10**6)
        require_ordered(first.party(carla), model, newer)
    assert older.rest() == ["superseded"]
    newer.close()


def require_ordered(carla: Party, model: pb.Pin, agent: Agent) -> None:
    """An order for the site reaches this agent."""
    ordered = carla.state(order_line("north/1", model))
    assert agent.next("order").order.execution_id == int(ordered.id)


def ears_of(replica: Replica, server: postgres.Server, database: str) -> int:
    """The process of PostgreSQL that this replica listens to: it is the one that comes anew."""
    replica.stop()
    until(lambda: len(listening(server, database)) == 1, "the other one listens")
    other = listening(server, database)
    replica.start()
    until(replica.is_listening, "it is back", 60)
    until(lambda: len(listening(server, database)) == 2, "and listens")
    (pid,) = listening(server, database) - other
    return pid


def listening(server: postgres.Server, database: str) -> set[int]:
    with server.connect() as admin:
        return {int(str(pid)) for (pid,) in admin.execute(LISTENING, (database,))}
