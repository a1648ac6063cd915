"""Orders wait for what may be there again; outputs are complete or absent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.lacks import LACKS, Patience
from agent.local.work import MENDS
from agent.records import Execution, State
from agent.settings import Settings
from housecall.errors import Kind, Refusal
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.gated import (
    Gate,
    allowing,
    predictions_of,
    succeeded,
    waiting_model,
)
from tests.agent.site import Bench, Site, wait_for
from tests.coordinator.world import sha
from tests.faults.disks import Disk

RESERVE = 16 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk", 64)
    assert disk.small, "mounting a tmpfs needs root"
    yield disk
    disk.close()


@contextmanager
def on_small_disk(bench: Bench, disk: Disk, folder: Path) -> Iterator[Site]:
    """A site that keeps RESERVE and is asked nothing; its dataset is ready."""
    state = disk.path / "state"
    made = site.enrolled(bench, folder, state_dir=state, disk_reserve_bytes=RESERVE)
    made = made.model_copy(update={"policy_file": allowing(folder)})
    with site.serving(bench, folder, made) as north:
        north.ready()
        yield north


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


def test_an_order_waits_for_a_registry_and_leaves_the_slot_to_others(
    bench: Bench, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runs.RETRY_S", 0.05)
    one_slot = settings.model_copy(update={"slots": 1})
    absent, present = (bench.add_model(name) for name in ("absent", "present"))
    for model in (absent, present):
        bench.approve_model(model)
    bench.engine.unpulled.add(sha("image of absent"))
    with site.serving(bench, tmp_path, one_slot) as north:
        journal = north.agent.journal
        number = bench.order(absent)
        wait_for(lambda: [e for e in journal.executions() if e.reason == "IMAGE_PULL_FAILED"])
        other = bench.order(present)
        wait_for(lambda: [e for e in journal.executions(execution_id=other) if succeeded(north, e)])
        bench.engine.unpulled.clear()
        wait_for(
            lambda: [e for e in journal.executions(execution_id=number) if succeeded(north, e)]
        )


def test_an_order_does_not_wait_for_a_registry_for_ever(
    bench: Bench, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runs.RETRY_S", 0.05)
    lack = LACKS["IMAGE_PULL_FAILED"]._replace(seconds=0.2)
    monkeypatch.setitem(LACKS, "IMAGE_PULL_FAILED", lack)
    bench.engine.unpulled.add(sha("image of gated"))
    with site.serving(bench, tmp_path, settings) as north:
        bench.order(bench.models[1])
        (failed,) = wait_for(lambda: north.agent.journal.executions(state=State.FAILED))
    assert failed.reason == "IMAGE_PULL_FAILED"


@pytest.mark.parametrize("failing", [1, 100])
def test_an_order_is_started_again_where_the_engine_did_not_manage(
    bench: Bench,
    gate: Gate,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
) -> None:
    monkeypatch.setattr("agent.runs.RETRY_S", 0.05)
    gate.opened.set()
    bench.engine.failing_starts = failing
    with site.serving(bench, tmp_path, settings) as north:
        number = bench.order(bench.models[1])
        journal = north.agent.journal
        (kept,) = wait_for(lambda: journal.executions(execution_id=number))
        wait_for(lambda: journal.execution(kept.id).state in (State.SUCCEEDED, State.FAILED))
        kept = journal.execution(kept.id)
    if failing == 1:
        assert kept.state is State.SUCCEEDED
    else:
        assert (kept.reason, failing - bench.engine.failing_starts) == ("STEP_START_FAILED", 5)


def test_an_image_that_is_nowhere_is_not_waited_for(
    bench: Bench, settings: Settings, tmp_path: Path
) -> None:
    model = bench.add_model("nowhere")
    bench.approve_model(model)
    bench.engine.forget_image(sha("image of nowhere"))
    with site.serving(bench, tmp_path, settings) as north:
        bench.order(model)
        (failed,) = wait_for(lambda: north.agent.journal.executions(state=State.FAILED))
    assert failed.reason == "IMAGE_NOT_FOUND"


def test_of_all_that_is_waited_for_it_is_said_what_to_do() -> None:
    assert MENDS.keys() == {lack.waits_for for lack in LACKS.values()}


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

    with on_small_disk(bench, small_disk, tmp_path) as north:
        bench.approve_model(bench.add_model("greedy", greedy))
        small_disk.fill(RESERVE // 2)
        north.bench.order(north.bench.models[1])
        wait_for(lambda: [e for e in north.agent.journal.executions() if e.reason == "DISK_FULL"])
        assert not started, "foreseen: not started"
        small_disk.free()
        (failed,) = wait_for(lambda: north.agent.journal.executions(state=State.FAILED))
    assert failed.reason == "DISK_FULL"
    assert len(started) == 5


@pytest.mark.parametrize("wrote", [False, True])
def test_a_disk_that_fills_while_a_model_runs_ends_no_order(
    bench: Bench,
    gate: Gate,
    tmp_path: Path,
    small_disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    wrote: bool,
) -> None:
    """Whether the model itself found no room, or the site, for what the model had written."""
    monkeypatch.setattr("agent.runs.RETRY_S", 0.05)

    monkeypatch.setattr("agent.watch.DISK_POLL_S", 600.0)  # its end alone tells

    def late(step: FakeStep) -> int:
        if not wrote:
            return gate.infer(step)
        site.infer(step)
        gate.steps.append(step)
        return int(not gate.opened.wait(20))

    with on_small_disk(bench, small_disk, tmp_path) as north:
        bench.approve_model(bench.add_model("late", late))
        execution = waiting_model(north, gate)
        small_disk.fill(0)
        gate.opened.set()
        predictions = predictions_of(north.settings, execution)
        infers = {"housecall.step": "infer"}
        wait_for(lambda: predictions.exists() or not bench.engine.adopt(infers))
        small_disk.free()
        wait_for(lambda: succeeded(north, execution))
    assert len(gate.steps) == (1 if wrote else 2), "what was written is not lost"


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


def test_a_day_is_counted_of_one_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("agent.lacks.since_boot", lambda: now[0])
    patience = Patience(5, {})
    pull = Refusal(Kind.UNAVAILABLE, "IMAGE_PULL_FAILED", "")
    assert patience.bears(pull)
    now[0] = 25 * 3600.0
    assert not patience.bears(pull)
    assert patience.bears(Refusal(Kind.UNAVAILABLE, "ENGINE_UNREACHABLE", ""))
    assert patience.bears(pull), "another thing was missing meanwhile"
