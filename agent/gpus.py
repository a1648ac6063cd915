"""The site's GPUs: which there are, and who has which.

One GPU, or one MIG instance, belongs to one step at a time. Asking for GPUs where there are none
at all means the CPU, so that a container written for both runs anywhere; asking for more than
there are is refused at once, since waiting would not help.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pynvml

from housecall.errors import Kind, Refusal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """What a step can be given; `mig` says that it is an instance of a partitioned GPU."""

    uuid: str
    name: str
    memory_bytes: int
    mig: bool


def discover(nvml: Any = pynvml) -> tuple[Gpu, ...]:
    """All GPUs in the driver's order, a partitioned one as its instances; none without a driver."""
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return ()
    except nvml.NVMLError as error:
        log.warning("GPUs are there but cannot be used", extra={"error": str(error)})
        return ()
    try:
        count = nvml.nvmlDeviceGetCount()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        return tuple(gpu for handle in handles for gpu in _of_device(nvml, handle))
    finally:
        nvml.nvmlShutdown()


def _of_device(nvml: Any, handle: Any) -> Iterator[Gpu]:
    try:
        partitioned = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError_NotSupported:
        partitioned = False
    if not partitioned:
        yield _gpu(nvml, handle, mig=False)
        return
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError_NotFound:
            continue
        yield _gpu(nvml, instance, mig=True)


def _gpu(nvml: Any, handle: Any, *, mig: bool) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
    return Gpu(nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), memory, mig)


@dataclass(frozen=True, eq=False)
class _Ticket:
    """A place in the queue, taken `since`, in seconds of the wall clock: for display."""

    owner: str
    since: float = field(default_factory=time.time)


class GpuPool:
    """Hands out GPUs in the order of asking; nobody overtakes, so a large request is never
    starved by small ones. Safe to use from several threads."""

    def __init__(self, gpus: tuple[Gpu, ...]) -> None:
        self.gpus = gpus
        self._all = tuple(gpu.uuid for gpu in gpus)
        self._held: dict[str, tuple[str, ...]] = {}
        self._queue: deque[_Ticket] = deque()
        self._changed = threading.Condition()

    @property
    def _free(self) -> tuple[str, ...]:
        taken = {uuid for held in self._held.values() for uuid in held}
        return tuple(uuid for uuid in self._all if uuid not in taken)

    def take(
        self, owner: str, request: str | int | None, timeout: float | None = None
    ) -> tuple[str, ...]:
        """The UUIDs for MedPerf's `gpus` value: a count, "all" or "device=<index or UUID>,...";
        waits until they are free. An owner that holds some is given those. Raises `Refusal`
        GPU_UNAVAILABLE when they do not exist and GPU_BUSY after `timeout` seconds."""
        with self._changed:
            if owner in self._held:
                return self._held[owner]
        named, count = self._wanted(request)
        return self._wait(owner, named, count, timeout) if count else ()

    def hold(self, owner: str, uuids: tuple[str, ...]) -> None:
        """What a container that runs on has, given by an earlier agent."""
        with self._changed:
            self._held[owner] = uuids

    def release(self, owner: str) -> None:
        with self._changed:
            self._held.pop(owner, None)
            self._changed.notify_all()

    def holders(self) -> dict[str, tuple[str, ...]]:
        """Who has which."""
        with self._changed:
            return dict(self._held)

    def queued(self) -> dict[str, float]:
        """Who waits for some, the first in line first, and since when."""
        with self._changed:
            return {ticket.owner: ticket.since for ticket in self._queue}

    def _wait(
        self, owner: str, named: tuple[str, ...], count: int, timeout: float | None
    ) -> tuple[str, ...]:
        ticket = _Ticket(owner)
        with self._changed:
            self._queue.append(ticket)
            try:
                if not self._changed.wait_for(lambda: self._ready(ticket, named, count), timeout):
                    message = f"GPUs: expected {count} free within {timeout} s, "
                    message += f"got {len(self._free)} of {len(self._all)}; wait or ask for fewer"
                    raise Refusal(Kind.EXHAUSTED, "GPU_BUSY", message)
                taken = self._held[owner] = named or self._free[:count]
                return taken
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _ready(self, ticket: _Ticket, named: tuple[str, ...], count: int) -> bool:
        enough = set(named) <= set(self._free) and len(self._free) >= count
        return self._queue[0] is ticket and enough

    def _wanted(self, request: str | int | None) -> tuple[tuple[str, ...], int]:
        """The GPUs asked for by name, and how many in all."""
        if not self._all or request is None:
            return (), 0
        if request == "all":
            return (), len(self._all)
        if isinstance(request, int):
            if not 0 <= request <= len(self._all):
                raise _unavailable(f"at most {len(self._all)}", str(request))
            return (), request
        devices = dict.fromkeys(request.removeprefix("device=").split(","))
        known = {str(index): uuid for index, uuid in enumerate(self._all)}
        known |= {uuid: uuid for uuid in self._all}
        for device in devices:
            if device not in known:
                raise _unavailable("one of " + ", ".join(known), device)
        named = tuple(dict.fromkeys(known[device] for device in devices))
        return named, len(named)


def _unavailable(expected: str, got: str) -> Refusal:
    message = f"GPUs: expected {expected}, got {got}; run at a site that has them"
    return Refusal(Kind.NOT_READY, "GPU_UNAVAILABLE", message)
