"""What this site computes on: facts for Hello, for status and for results.

An engine that hangs is taken for one that is away: whoever asks has others waiting.
"""

from __future__ import annotations

import platform
import threading
from concurrent.futures import Future
from pathlib import Path

from agent.engines.port import Engine, EngineFacts
from agent.gpus import Gpu
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb

SOON_S, PATIENT_S = 3.0, 30.0
"""For who is waited for: the coordinator gives a Hello ten seconds, a person looks at a status. And
for what is kept: limits of the cage, results."""


class Environment:
    """Asks the engine in a thread of its own, once at a time: who asks meanwhile shares it."""

    def __init__(
        self, engine: Engine, gpus: tuple[Gpu, ...], *, cpuinfo: str = "/proc/cpuinfo"
    ) -> None:
        self._engine, self._gpus, self._cpuinfo = engine, gpus, Path(cpuinfo)
        self._lock = threading.Lock()
        self._asked: Future[EngineFacts] | None = None

    def facts(self, within_s: float = SOON_S) -> pb.EnvironmentFacts:
        """As the engine says now; engine fields stay empty while it does not answer in time."""
        found = pb.EnvironmentFacts(
            operating_system=platform.platform(),
            architecture=platform.machine(),
            cpu_model=_cpu_model(self._cpuinfo),
            gpus=[pb.GpuFacts(name=gpu.name, memory_bytes=gpu.memory_bytes) for gpu in self._gpus],
        )
        try:
            said = self._ask().result(within_s)
        except (Refusal, TimeoutError):
            return found
        found.engine, found.engine_version = said.kind, said.version
        found.operating_system = said.os or found.operating_system
        found.architecture = said.architecture or found.architecture
        found.cpus, found.memory_bytes = said.cpus, said.memory_bytes
        return found

    def _ask(self) -> Future[EngineFacts]:
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                arguments = (self._engine, self._asked)
                threading.Thread(
                    target=_answer, args=arguments, name="environment", daemon=True
                ).start()
            return self._asked


def _answer(engine: Engine, asked: Future[EngineFacts]) -> None:
    try:
        asked.set_result(engine.facts())
    except BaseException as error:
        asked.set_exception(error)


def _cpu_model(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
