"""Programs of the world: each in a session of its own, killed at will, started again by a keeper.

The keeper stands in for the service manager: what ends is started again after a while.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

POLL_S = 0.05
RESTART_S = 0.5


class Program:
    """One program that should run. `before` prepares each start, as removing a stale file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
        directory: Path | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.command, self.log = name, list(command), log
        self.environment = dict(environment or {})
        self._user, self._before, self._directory = user, before, directory
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0
        self.wanted = False
        self.starts = 0

    def start(self) -> None:
        """Run it from now on."""
        with self._lock:
            self.wanted = True
            self._not_before = 0.0
            self.tend()

    def tend(self) -> None:
        """Start it again when it ended, its pause is over, and it is wanted."""
        with self._lock:
            if not self.wanted or self.alive or time.monotonic() < self._not_before:
                return
            if self._process is not None and self._not_before == 0.0:
                self._not_before = time.monotonic() + RESTART_S
                return
            self._before()
            self._not_before = 0.0
            self.starts += 1
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.environment},
                    cwd=self._directory,
                    user=self._user,
                    group=self._user,
                    extra_groups=None if self._user is None else [],
                    start_new_session=True,
                )

    @property
    def pid(self) -> int:
        """0 while it is not there."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    @property
    def alive(self) -> bool:
        return bool(self.pid)

    def send(self, number: signal.Signals) -> bool:
        """False when there is nobody to send it to."""
        with self._lock:
            if not self.pid:
                return False
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
            return True

    def kill(self, pause_s: float = 0.0) -> bool:
        """kill -9; it stays away for `pause_s`."""
        with self._lock:
            self._not_before = time.monotonic() + pause_s
            if not self.send(signal.SIGKILL):
                return False
            assert self._process is not None
            self._process.wait()
            return True

    def end(self, seconds: float = 20.0) -> int | None:
        """SIGTERM, and kill -9 when it does not listen. Its exit code."""
        with self._lock:
            self.wanted = False
            process = self._process
        if process is None:
            return None
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            process.wait()
            return None


def end_all(programs: Sequence[Program]) -> None:
    """All at once; each as `end` does."""
    for program in programs:
        program.wanted = False
        program.send(signal.SIGCONT)
        program.send(signal.SIGTERM)
    for program in programs:
        program.end()


class Keeper:
    """Tends all programs until it is closed."""

    def __init__(self) -> None:
        self.programs: list[Program] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def add(self, program: Program) -> Program:
        self.programs.append(program)
        return program

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            for program in list(self.programs):
                program.tend()


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def command_of(pid: int) -> str:
    """Its words, each ended by a NUL; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, as the kernel knows them now; none below 0, a program's that is
    not there: everything is."""
    if not pid:
        return []
    children: dict[int, list[int]] = {}
    for each in processes():
        with suppress(OSError):
            parent = int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(each)
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Until it holds; `TimeoutError` names what did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
