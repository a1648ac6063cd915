"""Programs that a benchmark starts: a log file each, ended with the block that started them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

START_S = 30.0
STOP_S = 20.0


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[int]:
    """The program runs within; gives its pid. SIGTERM ends it, SIGKILL where that does not."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
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
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
