"""Programs that a benchmark starts: a log file each, ended with the block that started them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

START_S = 30.0
STOP_S = 20.0


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """The program runs within, with `environment` added to ours; gives its pid. SIGTERM ends it,
    SIGKILL where that does not."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_port(port: int) -> None:
    """Until something listens on loopback."""
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port} after {START_S:.0f} s")
        time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    """What a running program has used, its own and the kernel's for it."""
    return _ticks(_stat(pid)) / os.sysconf("SC_CLK_TCK")


def family_cpu_seconds(pid: int) -> float:
    """What a running program and those that it started have used, ended ones included."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = _stat(int(folder.name))
            if pid == int(folder.name):
                ticks += int(fields[13]) + int(fields[14])
            if pid in (int(folder.name), int(fields[1])):
                ticks += _ticks(fields)
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """From the third field on: the second, the name, may have blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _ticks(fields: list[str]) -> int:
    return int(fields[11]) + int(fields[12])
