"""A model behind a gate: a container that runs for as long as a test wants."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from agent.records import Execution, State
from agent.settings import Settings
from housecall.v1 import statements_pb2 as pb
from tests.agent.fake_engine import FakeStep
from tests.agent.site import Site, infer, wait_for


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


def allowing(folder: Path) -> Path:
    """A policy that lets everything run and leave."""
    policy = folder / "policy.yaml"
    policy.write_text("rules:\n  - {name: all, benchmark: 1, run: allow, release: allow}\n")
    return policy


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


def steps_of(north: Site, execution: Execution) -> list[pb.StepRecord]:
    kept = north.agent.journal.steps(f"execution:{execution.id}")
    return [pb.StepRecord.FromString(each.record) for each in kept]
