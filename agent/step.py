"""What a step is: its mounts, its cage, its clocks, and how its end is classified.

    STEP_FAILED         it ended with another exit code than 0
    STEP_OUT_OF_MEMORY  it reached its memory limit
    STEP_TIMEOUT        it ran longer than its wall-clock limit
    STEP_SILENT         it was silent for longer than its silence limit
    STEP_STOPPED        somebody stopped it, or the agent stops

Running one is left to `pipeline.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.containers import Ready
from agent.engines.port import Exit, Limits, Mount, StepSpec
from agent.staging import Output
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb

OWN_ENDS = {
    "STEP_FAILED": Kind.NOT_READY,
    "STEP_OUT_OF_MEMORY": Kind.NOT_READY,
    "STEP_TIMEOUT": Kind.EXHAUSTED,
    "STEP_SILENT": Kind.EXHAUSTED,
}
"""Ends that are the container's own doing: the same again if it were run again."""
RESUME_VARIABLE = "HOUSECALL_RESUME"
"""A task that sets this in its environment goes on with what its output folders hold."""


@dataclass(frozen=True)
class Clocks:
    """Seconds that a step may run, and be silent."""

    wall_s: float
    silence_s: float

    def within(self, limits: pb.TaskLimits) -> Clocks:
        """The benchmark's limits, capped by these, which are the site's."""
        return Clocks(
            min(limits.wall_seconds or self.wall_s, self.wall_s),
            min(limits.silence_seconds or self.silence_s, self.silence_s),
        )


@dataclass(frozen=True)
class Step:
    """A task of a container, with the site's file or folder for each of its labels. `owner` is
    the journal's: "execution:<id>" or "dataset:<number>"."""

    owner: str
    container: Ready
    task: str
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Output]
    logs: Path
    clocks: Clocks

    @property
    def written(self) -> list[Output]:
        """The outputs that this container's task has."""
        task = self.container.config.tasks[self.task]
        return [self.outputs[label] for label in task.outputs]

    @property
    def log(self) -> Path:
        """What its container prints."""
        return self.logs / f"{self.task}.log"

    @property
    def resumes(self) -> bool:
        return RESUME_VARIABLE in self.container.config.tasks[self.task].environment


@dataclass(frozen=True)
class Cage:
    """What the site gives every step."""

    user: str
    limits: Limits
    shm_bytes: int
    grace_s: int
    log_level: str
    state_dir: Path
    disk_reserve: int
    instance: str

    def labels(self, owner: str) -> dict[str, str]:
        """By which the containers of an owner are found again."""
        return {"housecall.agent": self.instance, "housecall.owner": owner}


def spec(step: Step, cage: Cage, name: str, *, gpus: tuple[str, ...], traceparent: str) -> StepSpec:
    """What the engine is asked for: the container's choices within the site's bounds."""
    task = step.container.config.tasks[step.task]
    shm = min(task.shm_size, cage.shm_bytes) if task.shm_size else None
    return StepSpec(
        name=name,
        image_id=step.container.image_id,
        mounts=tuple(_mounts(step)),
        limits=replace(cage.limits, shm_bytes=shm),
        user=cage.user,
        labels={**cage.labels(step.owner), "housecall.step": step.task},
        command=task.command,
        entrypoint=task.entrypoint,
        environment={
            "MEDPERF_LOGLEVEL": cage.log_level,
            "TRACEPARENT": traceparent,
            **task.environment,
        },
        gpus=gpus,
    )


class StepFailed(Refusal):
    """The container ended by itself, and not well."""

    def __init__(self, code: str, message: str, exit_code: int) -> None:
        super().__init__(OWN_ENDS[code], code, message)
        self.exit_code = exit_code


def _mounts(step: Step) -> Iterator[Mount]:
    task = step.container.config.tasks[step.task]
    for label, volume in task.inputs.items():
        yield Mount(step.inputs[label], volume.mount_path, read_only=True)
    for label, volume in task.outputs.items():
        yield Mount(step.outputs[label].written_at, volume.mount_path, read_only=False)


def failed(step: Step, ended: Exit) -> StepFailed:
    if ended.oom_killed:
        return StepFailed(
            "STEP_OUT_OF_MEMORY",
            f"{step.task}: expected it to stay within its memory, got exit code {ended.code} "
            "after the limit was reached; raise the setting memory_limit or use smaller data",
            ended.code,
        )
    why = f" ({ended.error})" if ended.error else ""
    return StepFailed(
        "STEP_FAILED",
        f"{step.task}: expected exit code 0, got {ended.code}{why}; its log says why",
        ended.code,
    )


def too_long(code: str, step: Step, what: str, seconds: float) -> StepFailed:
    return StepFailed(
        code,
        f"{step.task}: expected {what} within {seconds:g} s, got none; the container was stopped. "
        "Look at its log, or ask for a larger limit",
        0,
    )
