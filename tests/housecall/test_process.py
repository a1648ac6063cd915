"""What is told of the process: as Prometheus's own client does, and where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

from housecall.process import Process

NAMES = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
}


def samples(collector: Process | ProcessCollector) -> dict[str, float]:
    return {each.name: each.value for family in collector.collect() for each in family.samples}


def test_it_is_what_the_client_says() -> None:
    clients, own = samples(ProcessCollector(registry=CollectorRegistry())), samples(Process())
    assert clients.keys() == own.keys() == NAMES
    for name, value in clients.items():
        assert own[name] == pytest.approx(value, rel=0.1, abs=5), name


def test_processes_alone_are_enough(tmp_path: Path) -> None:
    """As `ProcSubset=pid` shows /proc."""
    (tmp_path / "self").symlink_to(Path("/proc/self").resolve())
    assert samples(Process(tmp_path)).keys() == NAMES


def test_what_is_not_shown_is_left_out(tmp_path: Path) -> None:
    assert samples(Process(tmp_path)).keys() == {"process_cpu_seconds_total", "process_max_fds"}
