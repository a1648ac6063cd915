"""The world of `world.py` with a coordinator that is a program of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.founding import found, operator_token
from coordinator.settings import Settings
from tests.coordinator.world import TRUST_DOMAIN, World, free_port

PROGRAMS = Path(sys.executable).parent


@contextmanager
def coordinator_process(folder: Path, **settings: str) -> Iterator[World]:
    """Ready, with an operator enrolled; its log is `coordinator.log`. Settings by their name."""
    listen = f"127.0.0.1:{free_port()}"
    made = Settings(state_dir=folder / "coordinator", listen=listen)
    house = found(made, TRUST_DOMAIN, listen)
    token = operator_token(made, house, "olga")
    settings |= {"state_dir": str(made.state_dir), "listen": listen}
    environment = {f"HOUSECALL_COORDINATOR_{k.upper()}": value for k, value in settings.items()}
    environment |= {
        "NOTIFY_SOCKET": str(folder / "notify"),
        "HOUSECALL_COORDINATOR_DRAIN_SECONDS": "0.5",
    }
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
        (folder / "coordinator.log").open("wb") as log,
    ):
        notices.bind(str(folder / "notify"))
        notices.settimeout(30)
        words = [str(PROGRAMS / "housecall-coordinator"), "serve"]
        program = subprocess.Popen(words, env={**os.environ, **environment}, stderr=log)
        try:
            while not notices.recv(500).startswith(b"READY=1"):
                pass  # it says how far its check is
            world = World(folder, house, made)
            world.enter("olga", token)
            yield world
            world.close()
        finally:
            program.send_signal(signal.SIGTERM)
            assert program.wait(30) == 0
