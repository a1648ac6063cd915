"""Background programs of the demo world: started in sessions of their own, known by pid file.

A pid file holds the pid and the kernel's start time of that process, so that a number that was
given to another program meanwhile is never signalled.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class DemoError(Exception):
    """A step of the demo that failed; the text is all that a reader needs."""


def start(name: str, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Start a program; its output goes to `<folder>/<name>.log`, its pid beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.log").open("ab") as log, Path(os.devnull).open("rb") as nothing:
        pid = os.posix_spawn(
            command[0],
            command,
            {**os.environ, **environment},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
            ],
            setsid=True,
        )
    (folder / f"{name}.pid").write_text(f"{pid} {_started(pid)}")


def stop_all(folder: Path, say: Callable[[str], None]) -> None:
    """SIGTERM to everything started here, agents before the coordinator; waits for the ends."""
    for pid_file in sorted(folder.glob("*.pid"), key=lambda path: path.stem == "coordinator"):
        pid = _living(pid_file)
        if pid is not None:
            say(f"stopping {pid_file.stem}")
            os.kill(pid, signal.SIGTERM)
            _wait(lambda pid_file=pid_file: _living(pid_file) is None, STOP_SECONDS)  # type: ignore[misc]
            if (pid := _living(pid_file)) is not None:
                os.kill(pid, signal.SIGKILL)
        pid_file.unlink()


def await_condition(what: str, condition: Callable[[], bool], name: str, folder: Path) -> None:
    """Wait until it holds; a program that ended meanwhile is an error with its log's tail."""
    pid_file = folder / f"{name}.pid"
    if not _wait(lambda: condition() or _living(pid_file) is None, START_SECONDS):
        raise DemoError(f"{what}: not within {START_SECONDS:.0f} s\n{tail(folder, name)}")
    if not condition():
        raise DemoError(f"{what}: {name} ended\n{tail(folder, name)}")


def tail(folder: Path, name: str, lines: int = 20) -> str:
    text = (folder / f"{name}.log").read_text(errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def _living(pid_file: Path) -> int | None:
    """The pid, if that very process is still there and not a zombie."""
    try:
        pid, started = pid_file.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if _started(int(pid)) == started else None


def _started(pid: int) -> str:
    """Start time in clock ticks since boot, field 22 of /proc/PID/stat; "" when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = text.rpartition(")")[2].split()
    if fields[0] == "Z":
        _reap(pid)
        return ""
    return fields[19]


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
