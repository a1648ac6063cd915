"""A PostgreSQL that is stopped and not dead: nobody is held up for long, and nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from coordinator.server import LAST_SECONDS
from coordinator.store import Store
from coordinator.store.schema import APPENDING
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb
from tests import postgres
from tests.coordinator.replicas import replicas
from tests.coordinator.test_fleet import Agent, until
from tests.coordinator.test_replica_faults import container, ledger, send, send_until_accepted
from tests.coordinator.world import Party

DRAIN_SECONDS = 2.0
CONNECT_SECONDS = 5.0
SLACK_SECONDS = 3.0  # two cores that do other things


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    """One of its own: others' tests would be frozen with it."""
    with postgres.server() as made:
        yield made


def test_the_coordinator_ends_while_its_database_hangs(
    server: postgres.Server, tmp_path: Path
) -> None:
    with (
        server.database() as name,
        replicas(tmp_path, server.url(name), drain_seconds=str(DRAIN_SECONDS)) as group,
    ):
        north = group.world.join("north", pb.ROLE_SITE)
        mona = group.world.join("mona", pb.ROLE_PERSON)
        first, second = group
        agent = Agent(first.party(north))
        envelope = container(mona, "unanswered")
        with (
            ThreadPoolExecutor(1) as pool,
            frozen_with(
                server, name, lambda: pool.submit(refusal_of_sending, first.party(mona), envelope)
            ) as stated,
        ):
            began = time.monotonic()
            assert first.stop(signal.SIGTERM) == 0
            took = time.monotonic() - began
            assert took < DRAIN_SECONDS + LAST_SECONDS + CONNECT_SECONDS + SLACK_SECONDS
            assert agent.ended()
            assert stated.result(10).kind is Kind.UNAVAILABLE
        index = send_until_accepted(second.party(mona).channel, envelope)
        assert index == len(ledger(second.party(group.world.operator))) - 1


def refusal_of_sending(party: Party, envelope: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        send(party.channel, envelope)
    return caught.value


@contextlib.contextmanager
def frozen_with(
    server: postgres.Server, database: str, state: Callable[[], Future[Refusal]]
) -> Iterator[Future[Refusal]]:
    """Frozen while the notary waits for its turn to append what `state` sends."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with server.connect(database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (APPENDING,))
        stated = state()
        until(lambda: other.execute(waiting).fetchone() == (1,), "the notary waits")
        with server.frozen():
            yield stated


def test_whoever_waits_is_let_go_and_nobody_connects_again(
    server: postgres.Server,
) -> None:
    with server.database() as name:
        store = Store.create(server.url(name))
        with server.frozen():
            asked: Future[object] = Future()
            thread = threading.Thread(target=lambda: asked.set_result(refusal_of_asking(store)))
            thread.start()
            until(lambda: store.engine.pool.checkedout() == 1, "it asks")  # type: ignore[attr-defined]
            store.hang_up()
            assert asked.result(CONNECT_SECONDS) == "STORE_UNREACHABLE"
            thread.join()
            assert refusal_of_asking(store) == "STORE_UNREACHABLE"
        store.close()


def refusal_of_asking(store: Store) -> str:
    with pytest.raises(Refusal) as caught, store.read() as reader:
        reader.tree_size()
    return caught.value.code
