"""A synchronous standby that is away: a COMMIT waits for it without an end, and reads go on."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.store import engine
from housecall import client
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import registry_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from tests import postgres
from tests.coordinator.test_fleet import until
from tests.coordinator.test_replica_faults import container, send_until_accepted
from tests.coordinator.world import free_port, running, world


def test_a_coordinator_begins_to_serve_behind_a_commit_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: the COMMIT of the one before goes on in the server, and has the lock."""
    monkeypatch.setattr(engine, "SLOW_SECONDS", 1.0)
    with (
        postgres.server() as server,
        server.database() as name,
        world(tmp_path, server.url(name)) as first,
        ThreadPoolExecutor(1) as pool,
        contextlib.ExitStack() as later,
    ):
        mona = first.join("mona", pb.ROLE_PERSON)
        with server.without_its_standby():
            stated = pool.submit(send_until_accepted, mona.channel, container(mona, "0"))

            def waits() -> int:
                nonlocal stated
                if stated.done():  # the server did not know yet
                    stated = pool.submit(send_until_accepted, mona.channel, container(mona, "more"))
                return server.commits_that_wait()

            until(waits, "a COMMIT waits for the standby")
            listen = f"127.0.0.1:{free_port()}"
            settings = first.settings.model_copy(update={"listen": listen})
            later.enter_context(running(settings, first.house))
            channel = client.connect(replace(first.operator.identity, address=listen))
            later.callback(channel.close)
            sites = registry_pb2_grpc.RegistryStub(channel).ListSites(reg.ListSitesRequest())
            assert list(sites.sites) == []
            assert server.commits_that_wait()
        assert stated.result(60)
