"""Connections that die without a word, as NATs and firewalls let them: pings find out."""

from __future__ import annotations

import dataclasses
import socket
import time
from pathlib import Path

import pytest

import housecall.credentials
from agent.server import Agent
from housecall.errors import Refusal
from housecall.proxy import parse
from housecall.rpc import CHANNEL_OPTIONS
from housecall.v1 import registry_pb2, registry_pb2_grpc
from tests.agent import site
from tests.agent.double import point_at
from tests.agent.site import Bench, Site, wait_for
from tests.housecall.connect_proxy import connect_proxy

ADDRESS = "coordinator.hospital.example:7443"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings that find out within a second, not half a minute."""
    options = [
        (name, 500 if "keepalive_t" in name or "ping_t" in name else value)
        for name, value in CHANNEL_OPTIONS
    ]
    monkeypatch.setattr(housecall.credentials, "CHANNEL_OPTIONS", options)


def test_pings_are_frequent_enough_and_allowed() -> None:
    options = dict(CHANNEL_OPTIONS)
    every_ms = int(options["grpc.keepalive_time_ms"])
    assert 5_000 < every_ms < 30_000  # below 5 s the coordinator hangs up
    for name in ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        assert every_ms + int(options[name]) < 60_000
    assert options["grpc.keepalive_permit_without_calls"] == 1


def test_the_outbox_gets_through_once_after_a_silent_end(
    bench: Bench, tmp_path: Path, impatient: None
) -> None:
    host, port = bench.world.house.address.split(":")
    with connect_proxy({ADDRESS: (host, int(port))}) as proxy:
        settings = site.enrolled(bench, tmp_path, proxy=proxy.url)
        point_at(settings, ADDRESS)
        with Agent(settings, lambda _: bench.engine) as agent:
            north = Site(bench, tmp_path, settings, agent)
            north.wait_linked()
            draft = north.draft("DraftDataset", north.registration())
            since = agent.link.state.connected_at
            proxy.silence()
            agent.releases.receipt_seconds = 0.1
            (sent,) = north.release(draft)
            assert not sent.HasField("receipt")
            wait_for(lambda: agent.link.state.connected_at > since, 10)
            wait_for(lambda: not agent.journal.waiting())
    found = bench.world.operator.registry.ListDatasets(registry_pb2.ListDatasetsRequest())
    assert [dataset.id for dataset in found.datasets] == ["north/1"]


def test_a_watch_of_a_coordinator_that_went_silent_ends(bench: Bench, impatient: None) -> None:
    host, port = bench.world.house.address.split(":")
    with connect_proxy({ADDRESS: (host, int(port))}) as proxy:
        carla = dataclasses.replace(bench.carla.identity, address=ADDRESS, proxy=parse(proxy.url))
        with carla.connect() as channel:
            request = registry_pb2.WatchBenchmarkRequest(benchmark_id=1)
            watch = registry_pb2_grpc.RegistryStub(channel).WatchBenchmark(request)
            with pytest.raises(Refusal) as caught, carla.refusals():  # noqa: PT012
                next(watch)
                proxy.silence()
                for _ in watch:
                    pass
            assert caught.value.code == "UNREACHABLE"


def test_a_handshake_without_an_answer_is_tried_again_soon(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that is frozen: the kernel takes connections for it, and nobody says no."""
    options = [*CHANNEL_OPTIONS, ("grpc.min_reconnect_backoff_ms", 500)]
    monkeypatch.setattr(housecall.credentials, "CHANNEL_OPTIONS", options)
    settings = site.enrolled(bench, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        point_at(settings, f"127.0.0.1:{frozen.getsockname()[1]}")
        with Agent(settings, lambda _: bench.engine) as agent:
            state = agent.link.state
            wait_for(lambda: state.next_try_at)
            assert "[UNREACHABLE]" in state.problem
            assert state.next_try_at < time.time() + 60
