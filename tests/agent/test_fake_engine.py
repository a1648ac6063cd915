"""The fake keeps the promises of the port that tests above it rely on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agent.engines.port import Engine, Exit, Limits, Mount, StepSpec
from housecall.errors import Refusal
from tests.agent.fake_engine import FakeEngine, FakeStep, OutOfMemory

DIGEST = "sha256:" + "a" * 64
LIMITS = Limits(2**26, 1, 32, 2**22, 2**20)


def spec(name: str, *mounts: Mount) -> StepSpec:
    return StepSpec(name, DIGEST, mounts, LIMITS, "1:1", {"housecall.step": name})


def test_a_script_runs_on_the_real_folders(tmp_path: Path) -> None:
    def script(step: FakeStep) -> int:
        step.log("working")
        (step.path("/out") / "made").write_text("yes")
        return 4

    fake = FakeEngine()
    fake.add_image(DIGEST, script)
    engine: Engine = fake
    container_id = engine.start(spec("one", Mount(tmp_path, "/out", read_only=False)))
    assert list(engine.logs(container_id)) == ["working"]
    assert engine.wait(container_id, 5) == Exit(4, False, "")
    assert (tmp_path / "made").read_text() == "yes"
    assert [each.state for each in engine.adopt({"housecall.step": "one"})] == ["exited"]
    with pytest.raises(Refusal, match="name taken"):
        engine.start(spec("one"))
    engine.remove(container_id)
    assert engine.adopt({"housecall.step": "one"}) == []


def test_endings() -> None:
    release = threading.Event()

    def script(step: FakeStep) -> int:
        if step.spec.name == "memory":
            raise OutOfMemory
        if step.spec.name == "polite":
            step.stopping.wait(10)
            return 5
        release.wait(10)
        return 0

    engine = FakeEngine()
    engine.add_image(DIGEST, script)
    memory, polite, deaf = (engine.start(spec(name)) for name in ("memory", "polite", "deaf"))
    assert engine.wait(memory, 5) == Exit(137, True, "")
    assert engine.wait(polite, 0.01) is None
    engine.stop(polite, 5)
    engine.stop(deaf, 0)
    assert engine.wait(polite, 5) == Exit(5, False, "")
    assert engine.wait(deaf, 5) == Exit(137, False, "")
    release.set()


def test_an_unreachable_engine_keeps_its_steps() -> None:
    engine = FakeEngine()
    engine.add_image(DIGEST, lambda step: 0)
    container_id = engine.start(spec("one"))
    engine.unreachable = True
    with pytest.raises(Refusal) as refused:
        engine.wait(container_id, 1)
    assert refused.value.code == "ENGINE_UNREACHABLE"
    engine.unreachable = False
    assert engine.wait(container_id, 5) == Exit(0, False, "")
