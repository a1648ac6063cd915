"""A container engine of Python functions, for tests of what stands above the port.

An image is a function `(FakeStep) -> exit code`, added under its digest. Each started step runs
it in a thread, on the real folders that the specification mounts. As with a real engine, steps
and their logs outlive whoever started them until `remove`, so a test restarts an agent by making
a new one over the same `FakeEngine`. Raising `OutOfMemory` ends a step as the kernel would; any
other exception is exit code 1 with its name in the log. `unreachable = True` makes every call
refuse with ENGINE_UNREACHABLE while steps go on running. `unseen` holds the names of containers
that the engine takes for created though they run, as after it was killed while it started them.
`cut_logs` breaks off whoever follows a log, and nothing else.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.engines import port
from agent.engines.port import EngineFacts, Exit, Running, StepSpec
from housecall.errors import Kind, Refusal

Script = Callable[["FakeStep"], int]


class OutOfMemory(Exception):
    """Raised by a script that is to end as a container over its memory limit does."""


@dataclass
class FakeStep:
    """What a script sees: its specification, its mounts, its log and whether it was told to
    stop. A script that ignores `stopping` is killed after the grace all the same."""

    spec: StepSpec
    stopping: threading.Event = field(default_factory=threading.Event)
    lines: list[str] = field(default_factory=list)
    exit: Exit | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def path(self, target: str) -> Path:
        """The site's folder that is mounted at `target`."""
        return next(mount.source for mount in self.spec.mounts if mount.target == target)

    def log(self, line: str) -> None:
        with self.changed:
            self.lines.append(line)
            self.changed.notify_all()

    def end(self, ending: Exit) -> None:
        with self.changed:
            self.exit = self.exit or ending
            self.changed.notify_all()

    def run(self, script: Script) -> None:
        try:
            self.end(Exit(script(self), False, ""))
        except OutOfMemory:
            self.end(Exit(137, True, ""))
        except Exception as error:
            self.log(type(error).__name__)
            self.end(Exit(1, False, ""))


class FakeEngine:
    """Implements `agent.engines.port.Engine`; `started` keeps every specification. The registry
    does not give the images `unpulled` now; the next `failing_starts` starts fail. Nothing runs of
    the containers `lost`, which it takes for running."""

    def __init__(self) -> None:
        self.unreachable = False
        self.unseen: set[str] = set()
        self.unpulled: set[str] = set()
        self.lost: set[str] = set()
        self.failing_starts = 0
        self._cuts = 0
        self.started: list[StepSpec] = []
        self._scripts: dict[str, Script] = {}
        self._steps: dict[str, FakeStep] = {}
        self._ids = itertools.count(1)

    def add_image(self, digest: str, script: Script) -> None:
        self._scripts[digest] = script

    def forget_image(self, digest: str) -> None:
        del self._scripts[digest]

    def close(self) -> None:
        pass

    def facts(self) -> EngineFacts:
        self._reach()
        return EngineFacts("fake", "1", "python", "Linux", "x86_64", 2, 2**33, "2")

    def find_image(
        self, reference: str, digest: str, stopped: Callable[[], bool] = lambda: False
    ) -> str:
        self._reach()
        if digest in self.unpulled:
            message = f"image {reference}: the registry does not answer; see the engine's log"
            raise Refusal(Kind.UNAVAILABLE, "IMAGE_PULL_FAILED", message)
        if digest not in self._scripts:
            message = f"image {reference}: expected {digest} at the site, got nothing"
            raise Refusal(Kind.NOT_FOUND, "IMAGE_NOT_FOUND", message)
        return digest

    def load_archive(self, path: Path, expected_image_id: str) -> str:
        return self.find_image(path.name, expected_image_id)

    def image_size(self, image_id: str) -> int:
        self.find_image("image", image_id)
        return 1000

    def start(self, spec: StepSpec) -> str:
        self._reach()
        script = self._scripts.get(spec.image_id)
        if any(step.spec.name == spec.name for step in self._steps.values()):
            raise Refusal(Kind.CONFLICT, "STEP_EXISTS", f"{spec.name}: name taken; look for it")
        if script is None or self.failing_starts:
            self.failing_starts = max(0, self.failing_starts - 1)
            message = f"engine could not start {spec.name}: image unknown"
            raise Refusal(Kind.UNAVAILABLE, "STEP_START_FAILED", message)
        for mount in spec.mounts:
            port.check_mount(mount)
        container_id, step = f"{next(self._ids):064x}", FakeStep(spec)
        self._steps[container_id] = step
        self.started.append(spec)
        threading.Thread(target=step.run, args=(script,), daemon=True).start()
        return container_id

    def start_created(self, container_id: str) -> None:
        step = self._step(container_id)
        if step.spec.name in self.unseen and not step.exit:
            raise Refusal(Kind.CONFLICT, "STEP_EXISTS", f"{step.spec.name}: its task exists")
        self.unseen.discard(step.spec.name)

    def adopt(self, labels: Mapping[str, str]) -> list[Running]:
        self._reach()
        return [
            Running(each, step.spec.name, step.spec.labels, self._state(step))
            for each, step in self._steps.items()
            if labels.items() <= step.spec.labels.items()
        ]

    def _state(self, step: FakeStep) -> str:
        if step.spec.name in self.unseen:
            return "created"
        return "exited" if step.exit else "running"

    def wait(self, container_id: str, timeout_s: float) -> Exit | None:
        step = self._step(container_id)
        with step.changed:
            step.changed.wait_for(lambda: step.exit or self.unreachable, timeout_s)
        self._reach()
        return step.exit

    def may_run(self, container_id: str) -> bool:
        return container_id not in self.lost

    def logs(self, container_id: str) -> Iterator[str]:
        step, cuts = self._step(container_id), self._cuts

        def is_quiet(at: int) -> bool:
            return len(step.lines) <= at and not step.exit and self._cuts == cuts

        for at in itertools.count():
            with step.changed:
                step.changed.wait_for(lambda at=at: not is_quiet(at))  # type: ignore[misc]
                if len(step.lines) <= at or self._cuts > cuts:
                    return
            yield step.lines[at]

    def cut_logs(self) -> None:
        self._cuts += 1
        for step in self._steps.values():
            with step.changed:
                step.changed.notify_all()

    def stop(self, container_id: str, grace_s: int) -> None:
        self._reach()
        step = self._steps.get(container_id)
        if step is not None:
            step.stopping.set()
            with step.changed:
                step.changed.wait_for(lambda: step.exit, grace_s)
            step.end(Exit(137, False, ""))

    def remove(self, container_id: str) -> None:
        self.stop(container_id, 0)
        self._steps.pop(container_id, None)

    def lose(self, container_id: str) -> None:
        """As if it had never been there."""
        self._steps.pop(container_id, None)

    def _step(self, container_id: str) -> FakeStep:
        self._reach()
        if container_id not in self._steps:
            message = f"container {container_id[:12]}: expected it at the engine, got nothing"
            raise Refusal(Kind.NOT_FOUND, "STEP_NOT_FOUND", message)
        return self._steps[container_id]

    def _reach(self) -> None:
        if self.unreachable:
            message = "engine: expected an answer, got none; start it"
            raise Refusal(Kind.UNAVAILABLE, "ENGINE_UNREACHABLE", message)
