"""A fresh coordinator for a benchmark: founded in a folder, served by a process of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.process import await_port, running
from coordinator.founding import House, found, operator_token
from coordinator.settings import Settings
from tests.coordinator.world import TRUST_DOMAIN, free_port


@dataclass(frozen=True)
class Served:
    """A running coordinator; `token` lets its operator, olga, join."""

    settings: Settings
    house: House
    token: str
    pid: int


@contextlib.contextmanager
def served(folder: Path, program: str = "coordinator") -> Iterator[Served]:
    """Within, `python -m program serve` answers on loopback, with its SQLite file in `folder`."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    settings = Settings(state_dir=folder, listen=address)
    house = found(settings, TRUST_DOMAIN, address)
    token = operator_token(settings, house, "olga")
    command = [sys.executable, "-m", program, "serve", "--listen", address]
    with running([*command, "--state-dir", str(folder)], folder / "log") as pid:
        await_port(port)
        yield Served(settings, house, token, pid)
