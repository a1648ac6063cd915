"""What went down with the engine, or vanished, is begun again; what fails by itself is not."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent import gpus
from agent.engines.port import Exit, StepSpec
from agent.gpus import Gpu
from agent.journal import Journal
from agent.pipeline import MOST_TRIES
from agent.records import State
from agent.settings import Settings
from agent.uptime import elapsed
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.gated import (
    Gate,
    begun,
    predictions_of,
    steps_of,
    succeeded,
    waiting_model,
)
from tests.agent.site import Bench, infer, wait_for


@pytest.mark.parametrize("code", [0, 1, 137])
def test_one_that_went_down_with_the_engine_is_begun_again(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path, code: int
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
        (gate.steps[0].path("/out") / "half").write_text("1")
        gate.steps[0].end(Exit(code, False, "", own=False))
        wait_for(lambda: len(gate.steps) == 2)
        gate.opened.set()
        wait_for(lambda: succeeded(north, execution))
        (record,) = [s for s in steps_of(north, execution) if s.name == "infer"]
    assert (record.state, record.exit_code) == (pb.STEP_STATE_SUCCEEDED, 0)
    assert not (predictions_of(settings, execution) / "half").exists()


@pytest.mark.parametrize("code", [0, 1])
def test_one_that_ended_before_a_boot_is_begun_again(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path, code: int
) -> None:
    """Whatever its code: what it wrote need not be on the disk."""
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    (gate.steps[0].path("/out") / "a.txt").write_text("")
    gate.steps[0].end(Exit(code, False, ""))
    with closing(Journal(settings.state_dir / "journal.sqlite")) as journal:
        (kept,) = journal.begun_steps()
        journal.set_step(replace(kept, boot_id="another boot"))
    gate.opened.set()
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: succeeded(north, execution))
    assert len(gate.steps) == 2
    assert (predictions_of(settings, execution) / "a.txt").read_text() == "1"


def test_one_from_before_a_boot_is_given_gpus_that_are_there(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card was replaced, or its instances were made anew."""
    card, other = (Gpu(name, "Example", 2**34, mig=False) for name in ("GPU-old", "GPU-new"))
    monkeypatch.setattr(gpus, "discover", lambda: (card,))
    model = bench.add_model("hungry", gate.infer, environment="{}, gpus: 1")
    bench.approve_model(model)
    with site.serving(bench, tmp_path, settings) as north:
        bench.order(model)
        execution = wait_for(lambda: begun(north) if gate.steps else None)
    gate.steps[0].end(Exit(137, False, "", own=False))
    with closing(Journal(settings.state_dir / "journal.sqlite")) as journal:
        (kept,) = journal.begun_steps()
        journal.set_step(replace(kept, boot_id="another boot"))
    monkeypatch.setattr(gpus, "discover", lambda: (other,))
    gate.opened.set()
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: succeeded(north, execution))
    assert [step.spec.gpus for step in gate.steps] == [("GPU-old",), ("GPU-new",)]


def test_one_that_is_taken_down_each_time_fails_in_the_end(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
        for number in range(1, 6):
            wait_for(lambda number=number: len(gate.steps) == number)  # type: ignore[misc]
            gate.steps[-1].end(Exit(0, False, "", own=False))
        (failed,) = wait_for(lambda: north.agent.journal.executions(state=State.FAILED))
    assert (failed.id, failed.reason) == (execution.id, "STEP_NOT_FOUND")
    assert not predictions_of(settings, execution).exists()
    folder = settings.state_dir / "executions" / str(execution.id) / "logs"
    logs = [path.read_text() for path in sorted(folder.glob("infer.log*"))]
    assert sorted(logs) == [f"begun {number}\n" for number in range(1, 6)], "the log of each try"


def test_one_that_is_killed_while_watched_failed_by_itself(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
        gate.steps[0].end(Exit(137, False, ""))
        wait_for(lambda: north.agent.journal.execution(execution.id).state is State.FAILED)
    assert len(gate.steps) == 1


@pytest.mark.parametrize(("resumes", "left"), [(False, []), (True, ["half"])])
def test_one_that_vanished_begins_again_where_it_supports_that(
    bench: Bench, settings: Settings, tmp_path: Path, resumes: bool, left: list[str]
) -> None:
    found: list[list[str]] = []

    def slow(step: FakeStep) -> int:
        found.append(sorted(file.name for file in step.path("/out").iterdir()))
        (step.path("/out") / "half").write_text("1")
        return infer(step) if len(found) > 1 else int(step.stopping.wait(20))

    name = "resuming" if resumes else "plain"
    environment = "{HOUSECALL_RESUME: goes-on}" if resumes else "{}"
    model = bench.add_model(name, slow, environment=environment)
    bench.approve_model(model)
    with site.serving(bench, tmp_path, settings) as north:
        bench.order(model)
        execution = wait_for(lambda: begun(north) if found else None)
    (container,) = bench.engine.adopt({"housecall.step": "infer"})
    bench.engine.remove(container.container_id)
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: succeeded(north, execution))
    assert found == [[], left]


def test_one_that_is_taken_away_each_time_fails_in_the_end(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
        while north.agent.journal.execution(execution.id).state is not State.FAILED:
            for found in bench.engine.adopt({"housecall.step": "infer"}):
                bench.engine.lose(found.container_id)
        failed = north.agent.journal.execution(execution.id)
    assert failed.reason == "STEP_NOT_FOUND"
    assert len(gate.steps) == 5


def test_one_that_the_engine_takes_for_created_is_never_run_beside(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    """An engine that was killed while it started a container does not see its processes."""
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    (left,) = bench.engine.adopt({"housecall.step": "infer"})
    bench.engine.unseen.add(left.name)
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: north.agent.journal.execution(execution.id).state is State.RUNNING)
        gate.opened.set()
        wait_for(lambda: succeeded(north, execution))
    assert len(gate.steps) == 1


def test_the_fifth_start_goes_on_when_the_engine_was_away(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runs.RETRY_S", 0.05)
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    with closing(Journal(settings.state_dir / "journal.sqlite")) as journal:
        (kept,) = journal.begun_steps()
        journal.set_step(replace(kept, tries=MOST_TRIES))
    bench.engine.unreachable = True
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: north.agent.journal.execution(execution.id).reason == "ENGINE_UNREACHABLE")
        bench.engine.unreachable = False
        gate.opened.set()
        wait_for(lambda: succeeded(north, execution))
    assert len(gate.steps) == 1


def test_a_step_that_needed_five_starts_is_no_reason_to_give_up_at_the_next(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runs.RETRY_S", 0.05)
    start, full = bench.engine.start, [True]

    def without_room(spec: StepSpec) -> str:
        if spec.labels["housecall.step"] == "evaluate" and full:
            full.clear()
            raise Refusal(Kind.EXHAUSTED, "DISK_FULL", "no space left on device")
        return start(spec)

    monkeypatch.setattr(bench.engine, "start", without_room)
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
        for number in range(1, MOST_TRIES):
            gate.steps[-1].end(Exit(0, False, "", own=False))
            wait_for(lambda number=number: len(gate.steps) > number)  # type: ignore[misc]
        gate.opened.set()
        wait_for(lambda: succeeded(north, execution))
    assert not full


def test_an_engine_that_is_away_for_longer_than_a_step_may_take_costs_nothing(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"wall_limit_s": 2})
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
        (kept,) = north.agent.journal.begun_steps()
        gate.opened.set()
        bench.engine.unreachable = True
        wait_for(lambda: gate.steps[0].exit)
        wait_for(lambda: elapsed(kept.boot_id, kept.boot_s) > 3)
        bench.engine.unreachable = False
        wait_for(lambda: succeeded(north, execution))
    assert len(gate.steps) == 1
