"""What this site computes on: facts for Hello and for results."""

from __future__ import annotations

import platform
from pathlib import Path

from agent.engines.port import Engine
from agent.gpus import Gpu
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb


def facts(
    engine: Engine, gpus: tuple[Gpu, ...], *, cpuinfo: str = "/proc/cpuinfo"
) -> pb.EnvironmentFacts:
    """As the engine says now; engine fields stay empty while it cannot be reached."""
    found = pb.EnvironmentFacts(
        operating_system=platform.platform(),
        architecture=platform.machine(),
        cpu_model=_cpu_model(Path(cpuinfo)),
        gpus=[pb.GpuFacts(name=gpu.name, memory_bytes=gpu.memory_bytes) for gpu in gpus],
    )
    try:
        said = engine.facts()
    except Refusal:
        return found
    found.engine, found.engine_version = said.kind, said.version
    found.operating_system = said.os or found.operating_system
    found.architecture = said.architecture or found.architecture
    found.cpus, found.memory_bytes = said.cpus, said.memory_bytes
    return found


def _cpu_model(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
