"""Brings up a Docker engine for the demo and the container tests, and takes down only its own.

An engine that answers is used and never stopped. Where none answers, Debian's `dockerd` is started
without a bridge and without firewall rules: every container here runs with no network anyway.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import DockerException

from examples import apt

STATE_DIR = Path(__file__).resolve().parent.parent / ".demo" / "engine"
SOCKET = "unix:///var/run/docker.sock"
SYSTEM_PID_FILE = Path("/var/run/docker.pid")
CONTAINERD_PID_FILE = Path("/var/run/docker/containerd/containerd.pid")
START_LIMIT_S = 90.0
STOP_LIMIT_S = 30.0
FLAGS = ("--bridge=none", "--iptables=false", "--ip-forward=false", f"--host={SOCKET}")
INSTALL_HINT = (
    "install Docker Engine and start it (Debian: `apt-get install docker.io`), or point DOCKER_HOST"
    " at an engine that runs elsewhere"
)

Say = Callable[[str], None]


class EngineError(Exception):
    """No engine answers and none could be started; the message says what to do."""


@dataclass(frozen=True)
class EngineHandle:
    """An engine that answered; `started` says whether this call started it."""

    started: bool
    address: str
    version: str


def address() -> str:
    return os.environ.get("DOCKER_HOST") or SOCKET


def version_of_answering() -> str | None:
    """The version of the engine that answers at `address()`, or None where none does."""
    if not _listens(address()):
        return None
    try:
        client = docker.from_env(timeout=5, environment=os.environ | {"DOCKER_HOST": address()})
    except DockerException:
        return None
    try:
        client.ping()
        return str(client.version()["Version"])
    except (DockerException, OSError):
        return None
    finally:
        client.close()


def _listens(address: str) -> bool:
    """Spares the SDK a refused Unix socket, which it would leave open."""
    if not address.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address.removeprefix("unix://")) == 0


def ensure_engine(state_dir: Path, say: Say) -> EngineHandle:
    """Use the engine that answers, else start one whose log and pid file live in `state_dir`.

    Raises EngineError where neither works.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with _lock(state_dir):
        version = version_of_answering()
        if version is not None:
            return EngineHandle(False, address(), version)
        if address() != SOCKET:
            raise EngineError(f"DOCKER_HOST is {address()}, and nothing answers there; unset it")
        _forget_the_dead(state_dir)
        running = _dockerd_in(state_dir / "dockerd.pid") or _dockerd_in(SYSTEM_PID_FILE)
        if running is None:
            _install_if_missing(say)
            say("starting dockerd")
        else:
            say(f"dockerd is running as process {running}; waiting for it")
        started = _spawn(state_dir) if running is None else running
        version = _await_answer(started, state_dir, say)
        return EngineHandle(running is None, address(), version)


def stop_engine(state_dir: Path) -> bool:
    """Stop the engine that `ensure_engine` started; False where there is none of ours."""
    pid_file = state_dir / "dockerd.pid"
    pid = _dockerd_in(pid_file)
    if pid is None:
        pid_file.unlink(missing_ok=True)
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_LIMIT_S
    while _is_program(pid, "dockerd"):
        if time.monotonic() > deadline:
            raise EngineError(f"dockerd (process {pid}) did not stop within {STOP_LIMIT_S:.0f} s")
        time.sleep(0.1)
    pid_file.unlink(missing_ok=True)
    return True


@contextmanager
def _lock(state_dir: Path) -> Iterator[None]:
    """One starter at a time: two dockerd beside each other take each other's state away."""
    with (state_dir / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _is_program(pid: int, name: str) -> bool:
    """Whether `pid` is alive and runs `name`: a number in an old file may be anyone's by now."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return Path(arguments[0].decode(errors="replace")).name == name


def _dockerd_in(pid_file: Path, name: str = "dockerd") -> int | None:
    try:
        pid = int(pid_file.read_text().strip())
    except (OSError, ValueError):
        return None
    return pid if _is_program(pid, name) else None


def _forget_the_dead(state_dir: Path) -> None:
    """Remove what a killed daemon left; dockerd trusts these files if the number is in use again.

    A stale socket needs nothing: dockerd replaces it.
    """
    for pid_file, name in (
        (state_dir / "dockerd.pid", "dockerd"),
        (CONTAINERD_PID_FILE, "containerd"),
    ):
        if pid_file.exists() and _dockerd_in(pid_file, name) is None:
            pid_file.unlink(missing_ok=True)


def _install_if_missing(say: Say) -> None:
    if os.geteuid() != 0:
        raise EngineError(f"no Docker engine answers, and only root can start one: {INSTALL_HINT}")
    if shutil.which("dockerd", path=_path()):
        return
    if not apt.available():
        raise EngineError(f"no Docker engine answers, and this is not Debian: {INSTALL_HINT}")
    try:
        apt.install("docker.io", say)
    except apt.AptError as error:
        raise EngineError(f"{error}\n{INSTALL_HINT}") from None


def _path() -> str:
    return f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', '')}"


def _spawn(state_dir: Path) -> int:
    """Start dockerd in a session of its own, so that Ctrl-C in the demo does not reach it."""
    program = shutil.which("dockerd", path=_path())
    if program is None:
        raise EngineError(f"dockerd is not installed: {INSTALL_HINT}")
    pid_file = state_dir.resolve() / "dockerd.pid"
    log = os.open(state_dir / "dockerd.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return os.posix_spawn(
            program,
            [program, *FLAGS, f"--pidfile={pid_file}"],
            os.environ | {"PATH": _path()},
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
        )
    finally:
        os.close(log)


def _await_answer(pid: int, state_dir: Path, say: Say) -> str:
    begin = time.monotonic()
    next_word = begin + 5
    while (version := version_of_answering()) is None:
        now = time.monotonic()
        if not _is_program(pid, "dockerd") and now > begin + 1:
            raise EngineError(f"dockerd ended at once:\n{_tail(state_dir / 'dockerd.log')}")
        if now > begin + START_LIMIT_S:
            raise EngineError(
                f"dockerd did not answer within {START_LIMIT_S:.0f} s:\n"
                f"{_tail(state_dir / 'dockerd.log')}"
            )
        if now > next_word:
            say(f"waiting for dockerd ({now - begin:.0f} s)")
            next_word = now + 5
        time.sleep(0.1)
    return version


def _tail(log: Path, lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.engine", description=__doc__)
    parser.add_argument("action", choices=("up", "down", "status"))
    parser.add_argument("--state-dir", type=Path, default=STATE_DIR)
    options = parser.parse_args()
    try:
        return _act(options.action, options.state_dir)
    except EngineError as error:
        print(f"engine: {error}", file=sys.stderr)
        return 1


def _act(action: str, state_dir: Path) -> int:
    if action == "up":
        handle = ensure_engine(state_dir, lambda line: print(line, flush=True))
        origin = "started" if handle.started else "already running"
        print(f"engine {handle.version} at {handle.address}, {origin}")
    elif action == "down":
        print("stopped" if stop_engine(state_dir) else "nothing to stop: no engine of ours runs")
    else:
        version = version_of_answering()
        ours = _dockerd_in(state_dir / "dockerd.pid") is not None
        print(f"engine {version} at {address()}" if version else "no engine answers")
        print(f"started here: {'yes' if ours else 'no'}")
        return 0 if version else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
