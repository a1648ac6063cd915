"""A site against programs of their own: the coordinator's world, and the agent itself."""

from __future__ import annotations

import os
import signal
import subprocess
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


@contextmanager
def agent_process(settings: Settings, log: Path) -> Iterator[None]:
    names = ("state_dir", "socket", "heartbeat_s", "stop_grace_s", "disk_reserve_bytes")
    said = {name: str(getattr(settings, name)) for name in names}
    said |= {"allowed_paths": ":".join(map(str, settings.allowed_paths)), "log_level": "debug"}
    said |= {"allow_pull": "false"}
    environment = {f"HOUSECALL_AGENT_{name.upper()}": value for name, value in said.items()}
    with log.open("wb") as stream:
        program = subprocess.Popen(
            [PROGRAMS / "housecall-agent", "serve"],
            env={**os.environ, **environment},
            stderr=stream,
        )
        try:
            wait_for(settings.socket.exists)
            yield
        finally:
            program.send_signal(signal.SIGTERM)
            assert program.wait(30) == 0
