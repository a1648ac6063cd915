"""What outlives an agent: containers are taken over, collected, or begun again; never run twice."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.engines.port import Exit
from agent.journal import Journal
from agent.records import Execution, State
from agent.settings import Settings
from housecall.errors import Refusal
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.site import Bench, Site, infer, prepare, wait_for
from tests.coordinator.world import sha
from tests.faults.disks import Disk

RESERVE = 16 * 2**20


@dataclass
class Gate:
    """A model that says `begun`, and infers when the test opens it."""

    opened: threading.Event = field(default_factory=threading.Event)
    steps: list[FakeStep] = field(default_factory=list)

    def infer(self, step: FakeStep) -> int:
        self.steps.append(step)
        step.log(f"begun {len(self.steps)}")
        while not self.opened.wait(0.02):
            if step.stopping.is_set():
                return 143
        return infer(step)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def settings(bench: Bench, gate: Gate, tmp_path: Path) -> Settings:
    """Of a site whose dataset is approved, with model 2 behind the gate."""
    made = site.enrolled(bench, tmp_path)
    made = made.model_copy(update={"policy_file": allowing(tmp_path)})
    with site.serving(bench, tmp_path, made) as north:
        north.ready()
        bench.approve_model(bench.add_model("gated", gate.infer))
    return made


def allowing(folder: Path) -> Path:
    """A policy that lets everything run and leave."""
    policy = folder / "policy.yaml"
    policy.write_text("rules:\n  - {name: all, benchmark: 1, run: allow, release: allow}\n")
    return policy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk", 64)
    assert disk.small, "mounting a tmpfs needs root"
    yield disk
    disk.close()


def waiting_model(north: Site, gate: Gate) -> Execution:
    """Model 2 was ordered and its container runs."""
    north.bench.order(north.bench.models[1])
    return wait_for(lambda: begun(north) if gate.steps else None)


def begun(north: Site) -> Execution | None:
    running = north.agent.journal.executions(state=State.RUNNING)
    steps = north.agent.journal.begun_steps()
    containers = north.bench.engine.adopt({"housecall.step": "infer"})
    return running[0] if running and steps and containers else None


def succeeded(north: Site, execution: Execution) -> bool:
    state = north.agent.journal.execution(execution.id).state
    assert state not in (State.FAILED, State.CANCELLED), north.agent.journal.execution(execution.id)
    return state is State.SUCCEEDED


def predictions_of(settings: Settings, execution: Execution) -> Path:
    return settings.state_dir / "executions" / str(execution.id) / "predictions"


def log_of(settings: Settings, execution: Execution) -> str:
    """Nothing, where nobody has written it yet."""
    log = settings.state_dir / "executions" / str(execution.id) / "logs" / "infer.log"
    return log.read_text() if log.exists() else ""


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


def test_an_engine_that_goes_away_and_comes_back_costs_nothing(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
        bench.engine.unreachable = True
        gate.opened.set()
        wait_for(lambda: gate.steps[0].exit)
        bench.engine.unreachable = False
        wait_for(lambda: succeeded(north, execution))
    assert len(gate.steps) == 1


def test_an_order_waits_for_an_engine_that_is_away(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runs.RETRY_S", 0.05)
    gate.opened.set()
    with site.serving(bench, tmp_path, settings) as north:
        bench.engine.unreachable = True
        north.bench.order(north.bench.models[1])

        def waits() -> Execution | None:
            found = north.agent.journal.executions(state=State.QUEUED)
            return found[0] if found and found[0].reason == "ENGINE_UNREACHABLE" else None

        execution = wait_for(waits)
        seen: list[Execution] = []
        north.agent.runs.changed = seen.append
        wait_for(lambda: [each.state for each in seen].count(State.QUEUED) == 3)
        assert seen[-1].updated_at == execution.updated_at, "it waits since it was first away"
        bench.engine.unreachable = False
        wait_for(lambda: succeeded(north, execution))
        assert north.agent.journal.execution(execution.id).reason == ""


def test_an_order_waits_for_room_and_gives_up_on_what_fills_the_disk(
    bench: Bench, tmp_path: Path, small_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runs.RETRY_S", 0.05)
    monkeypatch.setattr("agent.watch.DISK_POLL_S", 0.0)
    started: list[FakeStep] = []

    def greedy(step: FakeStep) -> int:
        started.append(step)
        out = step.path("/out")
        (out / "large").write_bytes(bytes(shutil.disk_usage(out).free - RESERVE // 4))
        return 143 if step.stopping.wait(20) else 0

    state = small_disk.path / "state"
    made = site.enrolled(bench, tmp_path, state_dir=state, disk_reserve_bytes=RESERVE)
    made = made.model_copy(update={"policy_file": allowing(tmp_path)})
    with site.serving(bench, tmp_path, made) as north:
        north.ready()
        bench.approve_model(bench.add_model("greedy", greedy))
        small_disk.fill(RESERVE // 2)
        north.bench.order(north.bench.models[1])
        wait_for(lambda: [e for e in north.agent.journal.executions() if e.reason == "DISK_FULL"])
        assert not started, "foreseen: not started"
        small_disk.free()
        (failed,) = wait_for(lambda: north.agent.journal.executions(state=State.FAILED))
    assert failed.reason == "DISK_FULL"
    assert len(started) == 5


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


def test_outputs_are_complete_or_absent(bench: Bench, settings: Settings, tmp_path: Path) -> None:
    def half(step: FakeStep) -> int:
        (step.path("/out") / "half").write_text("1")
        return 1

    model = bench.add_model("half", half)
    bench.approve_model(model)
    with site.serving(bench, tmp_path, settings) as north:
        bench.order(model)
        (failed,) = wait_for(lambda: north.agent.journal.executions(state=State.FAILED))
    folder = settings.state_dir / "executions" / str(failed.id)
    assert not (folder / "predictions").exists()
    assert not (folder / "results.yaml").exists()


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


def steps_of(north: Site, execution: Execution) -> list[pb.StepRecord]:
    kept = north.agent.journal.steps(f"execution:{execution.id}")
    return [pb.StepRecord.FromString(each.record) for each in kept]
