"""What Prometheus reads from the program itself, right after work that is known."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from coordinator.authority import SERVER_LIFE
from coordinator.fleet import Fleet
from coordinator.founding import found
from coordinator.metrics import Meters, Standing
from coordinator.server import serving
from coordinator.settings import Settings
from coordinator.standing import Doing, Word
from coordinator.store import Store
from housecall.errors import Refusal
from housecall.rpc import refusals
from housecall.v1 import fleet_pb2
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.process import coordinator_process
from tests.coordinator.world import (
    MODEL_CONFIG,
    TRUST_DOMAIN,
    free_port,
    register_container,
    register_model,
)
from tests.scrape import Scrape

PREFIX = "housecall_coordinator_"
METHODS = "/housecall.v1."


def test_counts_are_those_of_the_work(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    with coordinator_process(tmp_path, metrics_listen=listen) as world:
        before = Scrape(listen)
        mona = world.join("mona", pb.ROLE_PERSON)
        register_model(mona, "first")
        register_container(mona, "first", pb.CONTAINER_ROLE_MODEL, MODEL_CONFIG)  # as sent before
        with pytest.raises(Refusal, match="not entitled"):
            mona.state(pb.ParticipantRevoked(name=world.operator.name, reason="no"))
        with pytest.raises(Refusal), refusals("coordinator"):
            mona.registry.GetModel(reg.GetModelRequest(id=99))
        after = Scrape(listen)
    entries = f"{PREFIX}ledger_entries"
    assert (before(entries), after(entries)) == (3, 3 + 4)
    kinds = {"JoinTokenIssued": 1, "ParticipantEnrolled": 2, "ContainerRegistered": 1}
    for kind, count in {**kinds, "ModelRegistered": 1}.items():
        assert after(f"{PREFIX}statements_accepted_total", kind=kind) == count
    assert after(f"{PREFIX}statements_repeated_total") == 1
    assert after(f"{PREFIX}statements_refused_total", code="NOT_ENTITLED") == 1
    assert after(f"{PREFIX}append_seconds_count") == 6
    assert after(f"{PREFIX}batch_statements_sum") == 6
    calls, append = f"{PREFIX}rpc_seconds_count", f"{METHODS}Ledger/Append"
    assert after(calls, method=append, code="OK") == 3
    assert after(calls, method=append, code="PERMISSION_DENIED") == 1
    assert after(calls, method=f"{METHODS}Registry/GetModel", code="NOT_FOUND") == 1
    assert (after(f"{PREFIX}orders_open"), after(f"{PREFIX}sites_connected")) == (0, 0)
    assert after(f"{PREFIX}database_up") == 1
    assert after("process_resident_memory_bytes") > 0
    expires = f"{PREFIX}certificate_expiry_timestamp_seconds"
    left = timedelta(seconds=after(expires, certificate="server") - time.time())
    assert SERVER_LIFE - timedelta(minutes=5) < left <= SERVER_LIFE
    for private in ("mona", "olga", "first", str(tmp_path)):
        assert private not in after.text


def test_a_state_that_nobody_knows_is_not_taken_and_hides_nothing(tmp_path: Path) -> None:
    async def said() -> Fleet:
        fleet, now = Fleet(), datetime.now(UTC)
        session = fleet.attach("north", Fleet().standing("north"), lambda: None)
        for number, state in enumerate((0, 99, pb.EXECUTION_STATE_RUNNING)):
            value = pb.ExecutionState.ValueType(state)
            fleet.progress(session, fleet_pb2.Progress(execution_id=number, state=value), now)
        assert [number for number, _ in fleet.all_progress()] == [2]
        other = pb.ExecutionState.ValueType(99)  # as a replica of another version tells it
        fleet.merge_progress(3, Doing(Word(1, 1), now, other, ""))
        return fleet

    settings = Settings(state_dir=tmp_path)
    house = found(settings, TRUST_DOMAIN, "127.0.0.1:1")
    store, meters = Store(settings.store_url), Meters()
    meters.registry.register(Standing(store, asyncio.run(said()), house.authority))
    text = generate_latest(meters.registry).decode()
    store.close()
    assert f'{PREFIX}orders_reported{{state="running"}} 1.0' in text


def lose_a_table(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("DROP TABLE execution"))


def lose_the_file(store: Store) -> None:
    store.engine.dispose()
    for path in Path(str(store.engine.url.database)).parent.glob("coordinator.db*"):
        path.write_bytes(b"no database" * 1000)


@pytest.mark.parametrize("lose", [lose_a_table, lose_the_file])
def test_a_database_that_fails_is_seen_and_hides_nothing_else(
    tmp_path: Path, lose: Callable[[Store], None]
) -> None:
    settings = Settings(state_dir=tmp_path)
    house = found(settings, TRUST_DOMAIN, "127.0.0.1:1")
    store, meters = Store(settings.store_url), Meters()
    meters.watch_database(store)
    meters.registry.register(Standing(store, Fleet(), house.authority))
    lose(store)
    generate_latest(meters.registry)  # errors are counted after they were exposed
    said = generate_latest(meters.registry).decode()
    store.close()
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(said)
        for sample in family.samples
    }
    assert samples[f"{PREFIX}database_up"] == 0
    assert samples[f"{PREFIX}database_errors_total"] >= 1
    assert samples[f"{PREFIX}sites_connected"] == 0
    assert f"{PREFIX}ledger_entries" not in samples


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics_listen": "everywhere"},
        {"metrics_listen": "127.0.0.1:99999"},
        {"trace_endpoint": "http://collector.example:4317"},
    ],
)
def test_what_cannot_be_is_refused_at_the_start(changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        Settings(**changes)
    assert caught.value.code == "SETTINGS_INVALID"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        refusal = refused_start(tmp_path, listen)
    assert refusal.code == "CANNOT_LISTEN"
    assert listen in refusal.message


def refused_start(folder: Path, metrics_listen: str) -> Refusal:
    listen = f"127.0.0.1:{free_port()}"
    settings = Settings(state_dir=folder, listen=listen, metrics_listen=metrics_listen)
    house = found(settings, TRUST_DOMAIN, settings.listen)

    async def serve() -> None:
        async with serving(settings, house):
            raise AssertionError("it serves")

    with pytest.raises(Refusal) as caught:
        asyncio.run(serve())
    return caught.value
