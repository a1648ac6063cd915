"""The committee's board as one snapshot: what its cells say, and what it asks of the store."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import event

from coordinator.board import snapshot
from coordinator.fleet import Fleet
from coordinator.standing import Doing, Word
from coordinator.store import Store
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.test_fleet import order_line, prepared
from tests.coordinator.world import Party, World, register_model, result_statement


def approve_model(carla: Party, mona: Party, name: str) -> pb.Pin:
    model = register_model(mona, name)
    asked = mona.state(pb.AssociationRequested(benchmark_id=1, model_id=model.id))
    yes = pb.DECISION_APPROVE
    carla.state(pb.AssociationDecided(association_id=int(asked.id), decision=yes, reason="good"))
    return model


def test_cells_show_the_newest_and_cost_no_question_each(coordinator: World) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, reference, other = prepared(coordinator, north)
    mona, store, fleet = coordinator.parties["mona"], Store(coordinator.settings.store_url), Fleet()
    asked: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *said: asked.append(said[2]))

    def look() -> tuple[reg.WatchBenchmarkResponse, int]:
        with store.read() as reader:
            benchmark = reader.benchmark(1)
            asked.clear()
            return snapshot(reader, benchmark, fleet), len(asked)

    empty, questions = look()
    assert (list(empty.dataset_ids), list(empty.model_ids)) == (["north/1"], [1, 2])
    assert not empty.cells
    assert [site.name for site in empty.sites] == [north.name]

    carla.state(order_line("north/1", other))
    carla.state(pb.ExecutionCancelled(execution_ids=[1], reason="mistake"))
    carla.state(order_line("north/1", other))
    fleet.merge_progress(
        2, Doing(Word(1, 1), datetime.now(UTC), pb.EXECUTION_STATE_RUNNING, "infer")
    )
    third = approve_model(carla, mona, "third")
    carla.state(order_line("north/1", third))
    carla.state(pb.ExecutionCancelled(execution_ids=[3], reason="too long"))
    north.state(result_statement(north, 1, "north/1", reference, pb.PURPOSE_BENCHMARK))
    approve_model(carla, mona, "fourth")

    full, same = look()
    store.close()
    assert [(c.model_id, c.state, c.step, c.reason, c.submitted) for c in full.cells] == [
        (1, pb.EXECUTION_STATE_SUCCEEDED, "", "", True),
        (2, pb.EXECUTION_STATE_RUNNING, "infer", "", False),
        (3, pb.EXECUTION_STATE_CANCELLED, "", "too long", False),
    ]
    assert same == questions
