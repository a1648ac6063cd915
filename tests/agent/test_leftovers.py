"""What an ended step leaves is not in the way of others: GPUs, and half an output."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from agent import gpus
from agent.gpus import Gpu
from agent.records import State
from agent.settings import Settings
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.gated import Gate, allowing, succeeded, waiting_model
from tests.agent.site import Bench, infer, wait_for
from tests.agent.test_waiting import RESERVE, small_disk
from tests.faults.disks import Disk

__all__ = ["small_disk"]


def test_a_gpu_is_free_once_its_container_is_gone(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Gpu("GPU-0", "Example", 2**34, mig=False)
    monkeypatch.setattr(gpus, "discover", lambda: (card,))
    asked_to_stop, goes, alone = threading.Event(), threading.Event(), list[bool]()
    first = list[FakeStep]()

    def stubborn(step: FakeStep) -> int:
        first.append(step)
        step.stopping.wait(60)
        asked_to_stop.set()
        goes.wait(60)
        return 143

    def second(step: FakeStep) -> int:
        alone.append(first[0].exit is not None)
        return infer(step)

    for name, work in (("stubborn", stubborn), ("second", second)):
        bench.approve_model(bench.add_model(name, work, environment="{}, gpus: 1"))
    settings = settings.model_copy(update={"stop_grace_s": 60})
    with site.serving(bench, tmp_path, settings) as north:
        bench.order(bench.models[-2])
        wait_for(lambda: first)
        (running,) = north.agent.journal.executions(state=State.RUNNING)
        number = bench.order(bench.models[-1])
        wait_for(north.agent.gpus.queued)
        north.agent.runs.cancel(running.id, "enough")
        assert asked_to_stop.wait(20)
        assert north.agent.gpus.queued(), "its container runs yet"
        goes.set()
        (waiting,) = north.agent.journal.executions(execution_id=number)
        wait_for(lambda: succeeded(north, waiting))
    assert alone == [True]


def test_what_a_greedy_model_wrote_is_away_when_it_failed(
    bench: Bench, tmp_path: Path, small_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runs.RETRY_S", 0.05)
    monkeypatch.setattr("agent.watch.DISK_POLL_S", 0.0)

    def greedy(step: FakeStep) -> int:
        out = step.path("/out")
        (out / "large").write_bytes(bytes(shutil.disk_usage(out).free - RESERVE // 4))
        return 143 if step.stopping.wait(20) else 0

    made = site.enrolled(
        bench, tmp_path, state_dir=small_disk.path / "state", disk_reserve_bytes=RESERVE
    )
    made = made.model_copy(update={"policy_file": allowing(tmp_path)})
    with site.serving(bench, tmp_path, made) as north:
        north.ready()
        for name, work in (("greedy", greedy), ("modest", infer)):
            bench.approve_model(bench.add_model(name, work))
        bench.order(bench.models[1])
        wait_for(lambda: north.agent.journal.executions(state=State.FAILED))
        number = bench.order(bench.models[2])
        (modest,) = wait_for(lambda: north.agent.journal.executions(execution_id=number))
        wait_for(lambda: succeeded(north, modest))


def unfinished(settings: Settings) -> list[Path]:
    return list(settings.state_dir.glob("executions/*/*.part"))


def test_a_cancelled_one_leaves_nothing_half(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
        assert unfinished(settings)
        north.agent.runs.cancel(execution.id, "enough")
        wait_for(lambda: not unfinished(settings))


def test_what_an_agent_left_that_was_killed_then_is_away_after_the_next_start(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    (kept,) = unfinished(settings)
    left = kept.parent.with_name("77") / "predictions.part"
    left.mkdir(parents=True)
    gate.opened.set()
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: not left.exists())
        wait_for(lambda: succeeded(north, execution))
