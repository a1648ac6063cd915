"""Coordinators for a benchmark: founded in a folder, served by processes of their own."""

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
class Founded:
    """A coordinator that is made and not served yet; `token` lets its operator, olga, join."""

    settings: Settings
    house: House
    token: str


@dataclass(frozen=True)
class Served(Founded):
    """A running coordinator."""

    pid: int


def founded(folder: Path, database_url: str = "") -> Founded:
    """On a free port of loopback, with its store in `folder` unless a URL names another one."""
    address = f"127.0.0.1:{free_port()}"
    settings = Settings(state_dir=folder, listen=address, database_url=database_url)
    house = found(settings, TRUST_DOMAIN, address)
    return Founded(settings, house, operator_token(settings, house, "olga"))


@contextlib.contextmanager
def serving(at: Founded, program: str = "coordinator", *, address: str = "") -> Iterator[int]:
    """Within, `python -m program serve` answers, where it was founded or at `address`; gives its
    pid."""
    settings = at.settings
    address = address or settings.listen
    command = [sys.executable, "-m", program, "serve", "--listen", address]
    command += ["--state-dir", str(settings.state_dir)]
    port = int(address.rpartition(":")[2])
    environment = {"HOUSECALL_COORDINATOR_DATABASE_URL": settings.database_url}
    with running(command, settings.state_dir / f"log.{port}", environment) as pid:
        await_port(port)
        yield pid


@contextlib.contextmanager
def served(folder: Path, program: str = "coordinator") -> Iterator[Served]:
    """Within, `python -m program serve` answers on loopback, with its SQLite file in `folder`."""
    at = founded(folder)
    with serving(at, program) as pid:
        yield Served(at.settings, at.house, at.token, pid)
