"""What Prometheus is told of a daemon's process, under the names that its client gives them.

Read off the process alone: the client's own collector says nothing where the rest of `/proc` is
hidden, as it is by `ProcSubset=pid` of a unit.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PROC = Path("/proc")
_STARTED = 19
"""Of the fields of `stat` that follow the program's name: when it started, in ticks since boot."""
_TICKS = 100  # a second: as Linux tells them to programs


class Process(Collector):
    """This process. What `proc` does not show is left out."""

    def __init__(self, proc: Path = PROC) -> None:
        self._own = proc / "self"
        self._started_at = 0.0
        with contextlib.suppress(OSError):
            fields = (self._own / "stat").read_text(errors="replace").rpartition(")")[2].split()
            since_boot = int(fields[_STARTED]) / _TICKS
            up = time.clock_gettime(time.CLOCK_BOOTTIME)
            self._started_at = time.time() - up + since_boot

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            time.process_time(),
        )
        yield GaugeMetricFamily(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )
        with contextlib.suppress(OSError):
            yield GaugeMetricFamily(
                "process_open_fds",
                "Number of open file descriptors.",
                len(list((self._own / "fd").iterdir())),
            )
        with contextlib.suppress(OSError):
            pages = (self._own / "statm").read_text().split()
            sizes = [int(each) * resource.getpagesize() for each in pages[:2]]
            names = ("virtual", "resident")
            for name, size in zip(names, sizes, strict=True):
                yield GaugeMetricFamily(
                    f"process_{name}_memory_bytes", f"{name.title()} memory size in bytes.", size
                )
        if self._started_at:
            yield GaugeMetricFamily(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                self._started_at,
            )
