"""A site against programs of their own: the coordinator's world, and the agent itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.settings import Settings
from housecall.v1 import statements_pb2 as pb
from tests.agent.site import Bench, wait_for
from tests.coordinator.process import PROGRAMS
from tests.coordinator.world import World


def founded(world: World) -> Bench:
    """The benchmark of `site.py`, at this coordinator."""
    carla, mona = (world.join(name, pb.ROLE_PERSON) for name in ("carla", "mona"))
    made = Bench(world, carla, mona)
    made.found()
    return made


def environment_of(settings: Settings) -> dict[str, str]:
    """These settings, for a program."""
    names = ("state_dir", "socket", "heartbeat_s", "stop_grace_s", "disk_reserve_bytes")
    said = {name: str(getattr(settings, name)) for name in names}
    said |= {"allowed_paths": ":".join(map(str, settings.allowed_paths)), "log_level": "debug"}
    said |= {"allow_pull": "false"}
    variables = {f"HOUSECALL_AGENT_{name.upper()}": value for name, value in said.items()}
    return {**os.environ, **variables}


@contextmanager
def dying_agent(settings: Settings, folder: Path, commit: str) -> Iterator[None]:
    """Dies as of kill -9 on a side of a commit, `after module.function>method`, while it is
    entered (`tests/faults/launch.py`)."""
    boundary = folder / "boundary"
    boundary.write_text(commit)
    words = [sys.executable, "-m", "tests.faults.launch", "agent", "serve"]
    environment = environment_of(settings) | {"FAULTS_BOUNDARY": str(boundary)}
    with (folder / "agent.log").open("wb") as log:
        program = subprocess.Popen(words, env=environment, stderr=log)
        try:
            wait_for(lambda: b'"link up"' in (folder / "agent.log").read_bytes(), 60)
            yield
            assert program.wait(30) == -signal.SIGKILL
        finally:
            program.kill()
            program.wait(30)


@contextmanager
def agent_process(settings: Settings, log: Path) -> Iterator[None]:
    with log.open("wb") as stream:
        program = subprocess.Popen(
            [PROGRAMS / "housecall-agent", "serve"],
            env=environment_of(settings),
            stderr=stream,
        )
        try:
            wait_for(settings.socket.exists)
            yield
        finally:
            program.send_signal(signal.SIGTERM)
            assert program.wait(30) == 0
