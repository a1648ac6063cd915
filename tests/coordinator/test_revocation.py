"""Who is revoked: every stream of theirs ends at once, even one that they do not read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from housecall.rpc import from_rpc_error
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.process import coordinator_process
from tests.coordinator.test_fleet import prepared, until
from tests.coordinator.world import Party, World, free_port, register_model
from tests.scrape import Scrape

MODELS, ROUNDS = 40, 12
LONGEST = "\N{PILE OF POO}" * 10_000
WATCH = "/housecall.v1.Registry/WatchBenchmark"


def revoke(world: World, party: Party) -> None:
    world.operator.state(pb.ParticipantRevoked(name=party.name, reason="left"))


def code_at_the_end(stream: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        for _ in stream:
            pass
    return from_rpc_error(caught.value, "coordinator").code


def test_a_stream_that_waits_for_news_ends(coordinator: World) -> None:
    carla = coordinator.join("carla", pb.ROLE_PERSON)
    stub: Any = health_pb2_grpc.HealthStub(carla.channel)
    watching = stub.Watch(health_pb2.HealthCheckRequest(service=""))
    assert next(iter(watching)).status == health_pb2.HealthCheckResponse.SERVING
    began = time.monotonic()
    revoke(coordinator, carla)
    assert code_at_the_end(watching) == "REVOKED"
    assert time.monotonic() - began < 5


def test_a_board_that_is_not_read_is_no_longer_written(tmp_path: Path) -> None:
    """Boards of more than a megabyte hold the coordinator up in a write."""
    listen = f"127.0.0.1:{free_port()}"
    with coordinator_process(tmp_path, metrics_listen=listen) as world:
        carla = big_benchmark(world)
        request = reg.WatchBenchmarkRequest(benchmark_id=1)
        unread = carla.registry.WatchBenchmark(request)
        assert len(next(unread).cells) == 0
        reading = world.operator.registry.WatchBenchmark(request)
        assert watchers(listen) == 2
        for number in range(ROUNDS):
            cancel_everywhere(carla, f"{number}{LONGEST}"[:10_000])
            while not is_board(next(reading), str(number)):  # written to the other one as well,
                pass  # until the windows of its connection were full
        reading.cancel()
        until(lambda: watchers(listen) == 1, "one is held up")
        revoke(world, carla)
        until(lambda: watchers(listen) == 0, "it was ended", 5)
        assert code_at_the_end(unread) == "REVOKED"


def is_board(board: reg.WatchBenchmarkResponse, begins: str) -> bool:
    return bool(board.cells) and all(cell.reason.startswith(begins) for cell in board.cells)


def watchers(listen: str) -> float:
    return Scrape(listen)("housecall_coordinator_streams", method=WATCH)


def big_benchmark(world: World) -> Party:
    """Its committee; one dataset and many approved models."""
    carla, _, _ = prepared(world, world.join("north", pb.ROLE_SITE))
    mona = world.parties["mona"]
    for number in range(MODELS):
        model = register_model(mona, f"model {number}")
        asked = mona.state(pb.AssociationRequested(benchmark_id=1, model_id=model.id))
        decision = pb.AssociationDecided(
            association_id=int(asked.id), decision=pb.DECISION_APPROVE, reason="good"
        )
        carla.state(decision)
    return carla


def cancel_everywhere(carla: Party, reason: str) -> None:
    """Orders for every model, and no more of them."""
    found = carla.registry.GetBenchmark(reg.GetBenchmarkRequest(id=1)).models
    lines = [
        pb.RequestedExecution(
            dataset_id="north/1",
            model=pb.Pin(id=model.id, digest=model.statement.container.digest),
        )
        for model in found
    ]
    ordered = carla.state(
        pb.ExecutionRequested(benchmark_id=1, purpose=pb.PURPOSE_BENCHMARK, executions=lines)
    )
    first = int(ordered.id)
    numbers = range(first, first + len(lines))
    carla.state(pb.ExecutionCancelled(execution_ids=numbers, reason=reason))
