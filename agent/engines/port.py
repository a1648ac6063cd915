"""The port of container engines: what a step asks for, and what every engine must promise.

An engine runs each step in the cage (docs: containers): no network, no capabilities, no new
privileges, default seccomp, read-only root with a size-bound `/tmp`, limits of memory, CPU and
processes, a non-root user, and `housecall.*` labels. What a `StepSpec` may say at all is checked
here, so that no engine can be talked out of it. Errors are refusals with one of the codes:

    ENGINE_UNREACHABLE    the engine does not answer; try again later
    IMAGE_NOT_FOUND       neither at the site nor where the reference points
    IMAGE_DIGEST_DIFFERS  what was found is not what was registered; final
    IMAGE_DIGEST_INVALID  the digest is not sha256:<64 hex digits>; final
    IMAGE_ARCHIVE_INVALID the file is no archive of `docker save` with one image; final
    IMAGE_PULL_FAILED     the registry refused, broke off or took too long
    STEP_REFUSED          the specification would leave the cage; final
    STEP_START_FAILED     the engine could not start the container
    STEP_STOPPED          somebody stopped the pull
    STEP_EXISTS           there is a container of that name, or its processes: look for it
    STEP_NOT_FOUND        the container is gone
    GPU_UNAVAILABLE       the engine cannot hand out the GPUs asked for
    DISK_FULL             the engine's disk has no space left
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from housecall.errors import Kind, Refusal

LABEL_PREFIX = "housecall."
TMP = "/tmp"  # noqa: S108 - inside the container, a tmpfs of its own
MAX_LOG_LINE_BYTES = 4096
ENGINE_SOCKETS = (
    Path("/run/docker.sock"),
    Path("/run/containerd/containerd.sock"),
    Path("/run/podman/podman.sock"),
)
_THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_USER = re.compile(r"([1-9][0-9]*):([1-9][0-9]*)")
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Mount:
    """One folder or file of the site, seen by the container at the absolute path `target`."""

    source: Path
    target: str
    read_only: bool


@dataclass(frozen=True)
class Limits:
    """Bounds of a step. `tmp_bytes` counts against `memory_bytes`; no swap is given.
    `shm_bytes` None means the engine's default of 64 MiB."""

    memory_bytes: int
    cpus: float
    pids: int
    tmp_bytes: int
    log_bytes: int
    shm_bytes: int | None = None


@dataclass(frozen=True)
class StepSpec:
    """One container run, fully decided by the site; raises `Refusal` STEP_REFUSED if it
    would leave the cage. `command` and `entrypoint` None mean the image's own, an empty
    entrypoint clears the image's; `gpus` are UUIDs; `user` is "uid:gid"."""

    name: str
    image_id: str
    mounts: tuple[Mount, ...]
    limits: Limits
    user: str
    labels: Mapping[str, str]
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not _USER.fullmatch(self.user):
            _refuse("user", "a non-root uid:gid", self.user)
        if any(group <= 0 for group in self.groups):
            _refuse("groups", "groups other than root's", str(self.groups))
        if not _IMAGE_ID.fullmatch(self.image_id):
            _refuse("image_id", "sha256:<64 hex digits>", self.image_id)
        if not self.labels or any(not name.startswith(LABEL_PREFIX) for name in self.labels):
            _refuse("labels", f"names that start with {LABEL_PREFIX}", ", ".join(self.labels))
        for mount in self.mounts:
            check_mount(mount)


@dataclass(frozen=True)
class Running:
    """A container of ours that the engine knows; `state` is the engine's word, such as
    "running", "exited" or "created"."""

    container_id: str
    name: str
    labels: Mapping[str, str]
    state: str


@dataclass(frozen=True)
class Exit:
    """How a container ended. `oom_killed` is also true when only a child was killed: read it
    together with `code`. `error` is the engine's own text, empty when there is none. `own` is
    false of one that was taken down, or may have been: by its engine, which went down, or by
    somebody at the engine. Its code says nothing then, not even 0."""

    code: int
    oom_killed: bool
    error: str
    own: bool = True


@dataclass(frozen=True)
class EngineFacts:
    """What runs the steps; part of what a result cites."""

    kind: str
    version: str
    runtime: str
    os: str
    architecture: str
    cpus: int
    memory_bytes: int
    cgroup_version: str


class Engine(Protocol):
    """What the pipeline needs of an engine; safe to call from several threads."""

    def close(self) -> None:
        """Let go of connections, not of containers."""

    def facts(self) -> EngineFacts: ...

    def find_image(
        self, reference: str, digest: str, stopped: Callable[[], bool] = lambda: False
    ) -> str:
        """The local image id of `digest`, which is a manifest's or a configuration's; pulled by
        digest, until `stopped`, when it is not at the site and pulling is allowed."""

    def load_archive(self, path: Path, expected_image_id: str) -> str:
        """Load a `docker save` archive; one that holds another image is refused unloaded."""

    def image_size(self, image_id: str) -> int: ...

    def start(self, spec: StepSpec) -> str:
        """The id of the started container. A name belongs to one container at a time: another
        start under it is refused with STEP_EXISTS. A failed start leaves no container behind."""

    def start_created(self, container_id: str) -> None:
        """Start a container that was created and, as far as the engine knows, never started: one
        that went down in the middle may have started it all the same. STEP_EXISTS while its
        processes run unseen, or may run: removing it then would not end them. STEP_NOT_FOUND when
        it is seen that they ended: the container is removed."""

    def adopt(self, labels: Mapping[str, str]) -> list[Running]:
        """Our containers that carry all these labels, in whatever state."""

    def wait(self, container_id: str, timeout_s: float) -> Exit | None:
        """How it ended, or None when it still runs after `timeout_s` (or earlier, when the
        engine restarted meanwhile)."""

    def may_run(self, container_id: str) -> bool:
        """False only where it is seen that nothing of it runs, whatever the engine says: one whose
        parts went down and came back can take for running what has ended."""

    def logs(self, container_id: str) -> Iterator[str]:
        """Follow both streams from the beginning to the end, a line at a time, without line
        ends; longer lines are cut into pieces of at most 4 KiB. They also end when the engine
        goes away: `wait` tells whether the step did."""

    def stop(self, container_id: str, grace_s: int) -> None:
        """SIGTERM, and SIGKILL after the grace; a container that is gone is no error."""

    def remove(self, container_id: str) -> None:
        """Remove it, running or not; a container that is gone is no error."""


def cage_environment(spec: StepSpec) -> dict[str, str]:
    """What the step sees: the cage's defaults, then the container's choice, then what it may
    not choose. The thread counts are there because a CPU quota does not change `os.cpu_count()`;
    "void" keeps a default NVIDIA runtime from handing GPUs to whoever names them."""
    threads = str(max(1, int(spec.limits.cpus)))
    defaults = {"HOME": TMP, "TMPDIR": TMP, **dict.fromkeys(_THREAD_COUNTS, threads)}
    devices = ",".join(spec.gpus) or "void"
    return {**defaults, **spec.environment, "NVIDIA_VISIBLE_DEVICES": devices}


def check_mount(mount: Mount, sockets: tuple[Path, ...] = ENGINE_SOCKETS) -> None:
    """Only files and folders, and none that is, holds or lies beside an engine's socket."""
    source = mount.source.resolve()
    if not (source.is_dir() or source.is_file()):
        _refuse(f"mount at {mount.target}", "an existing folder or file", "none")
    for socket in (path.parent.resolve() / path.name for path in sockets):
        if socket.is_relative_to(source) or (source / socket.name).exists():
            _refuse(f"mount at {mount.target}", "no engine socket inside", socket.name)


def _refuse(what: str, expected: str, got: str) -> None:
    message = f"step {what}: expected {expected}, got {got!r}; correct the site's settings"
    raise Refusal(Kind.NOT_ALLOWED, "STEP_REFUSED", message)
