"""What outlives an agent: containers are taken over or collected; never run twice."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from agent.engines.port import Exit
from agent.records import State
from agent.settings import Settings
from housecall.errors import Refusal
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.gated import (
    Gate,
    log_of,
    predictions_of,
    succeeded,
    waiting_model,
)
from tests.agent.site import Bench, prepare, wait_for
from tests.coordinator.world import sha


def test_a_running_container_survives_the_agent_and_is_taken_over(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    (left,) = bench.engine.adopt({"housecall.step": "infer"})
    assert left.state == "running", "the agent's stop leaves it alone"
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: north.agent.journal.execution(execution.id).state is State.RUNNING)
        gate.steps[0].log("said while the second agent runs")
        gate.opened.set()
        wait_for(lambda: succeeded(north, execution))
        wait_for(
            lambda: not bench.engine.adopt({"housecall.agent": left.labels["housecall.agent"]})
        )
    assert len(gate.steps) == 1, "it ran once"
    assert log_of(settings, execution).splitlines() == [
        "begun 1",
        "said while the second agent runs",
        "inferred",
    ]


def test_a_container_that_ended_meanwhile_is_collected(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    gate.opened.set()
    wait_for(lambda: gate.steps[0].exit)
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: succeeded(north, execution))
    assert len(gate.steps) == 1


def test_one_that_failed_meanwhile_failed(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    gate.steps[0].end(Exit(9, False, ""))
    with site.serving(bench, tmp_path, settings) as north:
        failed = wait_for(lambda: north.agent.journal.executions(state=State.FAILED))[0]
    assert (failed.id, failed.reason, failed.problem.split(";")[0]) == (
        execution.id,
        "STEP_FAILED",
        "infer: expected exit code 0, got 9",
    )
    assert len(gate.steps) == 1


def test_a_log_that_breaks_off_alone_is_followed_again(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
        wait_for(lambda: log_of(settings, execution))
        bench.engine.cut_logs()
        gate.steps[0].log("said afterwards")
        wait_for(lambda: "said afterwards" in log_of(settings, execution))
        gate.opened.set()
        wait_for(lambda: succeeded(north, execution))
    assert log_of(settings, execution).splitlines() == ["begun 1", "said afterwards", "inferred"]


def test_a_step_that_ended_is_not_run_again(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    gate.opened.set()
    evaluating, told = threading.Event(), threading.Event()

    def evaluate(step: FakeStep) -> int:
        evaluating.set()
        while not told.wait(0.02):
            if step.stopping.is_set():
                return 143
        return site.evaluate(step)

    bench.engine.add_image(sha("image of evaluator"), evaluate)
    with site.serving(bench, tmp_path, settings) as north:
        north.bench.order(north.bench.models[1])
        wait_for(evaluating.is_set)
        (execution,) = north.agent.journal.executions(state=State.RUNNING)
    predictions = predictions_of(settings, execution)
    assert len(list(predictions.iterdir())) == 3, "delivered before it was written down"
    with site.serving(bench, tmp_path, settings) as north:
        told.set()
        wait_for(lambda: succeeded(north, execution))
    assert len(gate.steps) == 1


def test_foreign_containers_are_left_alone_and_strays_are_removed(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        waiting_model(north, gate)
    spec = bench.engine.started[-1]
    instance = spec.labels["housecall.agent"]
    stray = {**spec.labels, "housecall.owner": "execution:999"}
    other = {**spec.labels, "housecall.agent": "another agent"}
    bench.engine.start(replace(spec, name="stray", labels=stray))
    bench.engine.start(replace(spec, name="other", labels=other))
    with site.serving(bench, tmp_path, settings):
        wait_for(lambda: len(bench.engine.adopt({"housecall.agent": instance})) == 1)
        assert len(bench.engine.adopt({"housecall.agent": "another agent"})) == 1
        gate.opened.set()


def test_what_was_delivered_before_the_agent_died_is_collected(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    gate.opened.set()
    wait_for(lambda: gate.steps[0].exit)
    gate.steps[0].path("/out").replace(predictions_of(settings, execution))
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: succeeded(north, execution))
    assert len(gate.steps) == 1


def test_a_cancelled_order_takes_its_container_with_it(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    """Cancelled while the agent was away."""
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    bench.carla.state(
        pb.ExecutionCancelled(execution_ids=[execution.execution_id], reason="enough")
    )
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: north.agent.journal.execution(execution.id).state is State.CANCELLED)
        wait_for(lambda: not bench.engine.adopt({"housecall.step": "infer"}))
    assert not gate.opened.is_set()


def test_a_preparation_is_taken_over_too(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    opened, began = threading.Event(), list[FakeStep]()

    def gated(step: FakeStep) -> int:
        if step.spec.labels["housecall.step"] == "prepare":
            began.append(step)
            while not opened.wait(0.02):
                if step.stopping.is_set():
                    return 143
        return prepare(step)

    bench.engine.add_image(sha("image of preparation"), gated)
    with site.serving(bench, tmp_path, settings) as north:
        north.register()
        with background(lambda: north.prepare()):
            wait_for(lambda: began and north.agent.journal.begun_steps())
            north.agent.worker.close(5)
    with site.serving(bench, tmp_path, settings) as north:
        opened.set()
        wait_for(lambda: north.dataset().state == site_pb2.LOCAL_DATASET_STATE_PREPARED)
    assert len(began) == 1


@contextlib.contextmanager
def background(work: object) -> Iterator[None]:
    """A caller whose terminal the agent's end cuts off."""

    def run() -> None:
        with contextlib.suppress(Refusal):
            assert callable(work)
            work()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(10)
