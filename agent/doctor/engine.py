"""Checks of what runs containers: the engine, its cage, GPUs."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pynvml

from agent import gpus
from agent.doctor.finding import Skip, Verdict, fail, ok, warn
from agent.doctor.scene import Scene
from agent.engines.docker import DockerEngine
from agent.engines.port import Limits, StepSpec
from housecall.errors import Kind, Refusal

WORD = 7
TRIED_IMAGES = 3
RUN_SECONDS = 30.0
LIMITS = Limits(memory_bytes=64 << 20, cpus=0.5, pids=32, tmp_bytes=1 << 20, log_bytes=1 << 16)
_NVIDIA, _DISPLAY = "0x10de", "0x03"
_NO_SHELL = ("not found", "no such file")
_NOT_RUN = (126, 127)
"""Exit codes of an engine that found no shell only when it had started."""


def engine(scene: Scene) -> Verdict:
    found = scene.engine
    if found.cage_problem:
        return fail(Kind.NOT_READY, found.cage_problem, "see docs/site.md, what the machine needs")
    steps = "run on when it restarts (live-restore)"
    if not found.live_restore:
        steps = "begin again when it restarts: live-restore would spare them, see docs/site.md"
    return ok(
        f"{found.kind} {found.version} (API {found.api_version}) at {found.address}; runtime "
        f"{found.runtime}, cgroup v{found.cgroup_version}, {len(found.images)} images; steps "
        f"{steps}"
    )


def cage(scene: Scene) -> Verdict:
    """A container, shut in as every step is, that says a word by its exit code."""
    images = scene.engine.images[:TRIED_IMAGES]
    if not images:
        raise Skip("no image is at the site to try it with")
    for image in images:
        try:
            code = _run(scene, image)
        except Refusal as refusal:
            if any(mark in refusal.message.lower() for mark in _NO_SHELL):
                continue
            raise
        if code in _NOT_RUN:
            continue
        if code != WORD:
            what = f"a container in the cage ended with {code}, expected {WORD}"
            return fail(Kind.NOT_READY, what, "see the engine's log")
        return ok(f"a container ran in the cage, as user {scene.settings.user}")
    raise Skip(f"no shell in the {len(images)} smallest images to try it with")


def gpu(scene: Scene) -> Verdict:
    """The driver's GPUs, whether the engine can hand them out, and what is free of them."""
    try:
        found = look()
    except pynvml.NVMLError as error:
        what = f"the NVIDIA driver cannot be used: {error}"
        return fail(
            Kind.NOT_READY, what, "reboot, or install the driver again: `nvidia-smi` tests it"
        )
    if not found:
        return _none_seen(devices())
    names = "; ".join(found)
    try:
        way = scene.engine.nvidia
    except Refusal:
        return ok(f"{names} (the engine was not asked)")
    if not way:
        what = f"{names}, and the engine cannot hand them out"
        fix = "install the NVIDIA container toolkit: `nvidia-ctk runtime configure`"
        return fail(Kind.NOT_READY, what, fix)
    return ok(f"{names}; the engine gives them by {way}")


def look(nvml: Any = pynvml) -> list[str]:
    """A line a GPU, as the driver says; none without a driver. Raises NVMLError."""
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return []
    try:
        version = nvml.nvmlSystemGetDriverVersion()
        handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        lines = [_line(nvml, handle) for handle in handles]
    finally:
        nvml.nvmlShutdown()
    steps = len(gpus.discover(nvml))
    return [*lines, f"driver {version}, {steps} to give to steps"] if lines else []


def _line(nvml: Any, handle: Any) -> str:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    free, total = memory.free / 2**30, memory.total / 2**30
    return f"{nvml.nvmlDeviceGetName(handle)}, {free:.0f} of {total:.0f} GiB free"


def devices(root: Path = Path("/sys/bus/pci/devices")) -> int:
    """NVIDIA GPUs on the bus, driver or not."""
    found: Iterable[Path] = root.iterdir() if root.is_dir() else ()
    return sum(
        _read(each / "vendor") == _NVIDIA and _read(each / "class").startswith(_DISPLAY)
        for each in found
    )


def _none_seen(on_the_bus: int) -> Verdict:
    if on_the_bus:
        what = f"{on_the_bus} NVIDIA GPUs are in this machine, and no driver is loaded"
        return warn(what, "install the NVIDIA driver, or leave it: steps run on the CPU")
    return ok("none: steps run on the CPU")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _run(scene: Scene, image: str) -> int:
    """Its exit code."""
    name = f"housecall-doctor-{secrets.token_hex(4)}"
    spec = StepSpec(
        name=name,
        image_id=image,
        mounts=(),
        limits=LIMITS,
        user=scene.settings.user,
        labels={"housecall.doctor": name},
        entrypoint=("sh",),
        command=("-c", f"exit {WORD}"),
    )
    with closing(DockerEngine(scene.settings.engine or None, allow_pull=False)) as opened:
        container_id = opened.start(spec)
        try:
            ended = opened.wait(container_id, RUN_SECONDS)
        finally:
            with suppress(Refusal):
                opened.remove(container_id)
    if ended is None:
        raise Refusal(
            Kind.UNAVAILABLE,
            "ENGINE_SLOW",
            f"a container that does nothing: expected its end within {RUN_SECONDS:g} s, got none; "
            "see the engine's log",
        )
    return ended.code
