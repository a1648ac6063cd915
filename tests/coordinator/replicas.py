"""Replicas: `housecall-coordinator serve` processes on one PostgreSQL, behind one address."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.founding import found, operator_token
from coordinator.settings import Settings
from housecall import client
from tests.coordinator.test_fleet import until
from tests.coordinator.world import TRUST_DOMAIN, Party, World, free_port
from tests.faults.proxy import Link, Relay

PROGRAM = Path(sys.executable).parent / "housecall-coordinator"
START_SECONDS = 60.0


@dataclass
class Replica:
    """One process; `party` makes somebody's channel to it, past the common address."""

    port: int
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    parties: list[Party] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=os.environ | self.environment, stderr=log
            )

    def is_listening(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(30)

    def party(self, party: Party) -> Party:
        identity = dataclasses.replace(party.identity, address=f"127.0.0.1:{self.port}")
        made = Party(identity, client.connect(identity))
        self.parties.append(made)
        return made


@dataclass
class Group:
    """The replicas, their common address, and the people who dial it."""

    replicas: list[Replica]
    address: Link
    relay: Relay
    world: World

    def __iter__(self) -> Iterator[Replica]:
        return iter(self.replicas)


@contextlib.contextmanager
def replicas(folder: Path, database_url: str, **settings: str) -> Iterator[Group]:
    """Two of them, with an operator; stopped at the end."""
    relay = Relay()
    ports = [free_port(), free_port()]
    address = relay.add("replicas", ports)
    state = Settings(state_dir=folder / "state", database_url=database_url)
    house = found(state, TRUST_DOMAIN, f"127.0.0.1:{address.port}")
    token = operator_token(state, house, "olga")
    made = [_replica(folder, port, state, settings) for port in ports]
    group = Group(made, address, relay, World(folder, house, state))
    try:
        for each in made:
            each.start()
        for each in made:
            until(each.is_listening, "the replica listens", START_SECONDS)
        group.world.enter("olga", token)
        yield group
    finally:
        _end(group)


def _replica(folder: Path, port: int, state: Settings, settings: dict[str, str]) -> Replica:
    environment = {"state_dir": str(state.state_dir), "database_url": state.database_url}
    environment |= {"listen": f"127.0.0.1:{port}", **settings}
    named = {f"HOUSECALL_COORDINATOR_{name.upper()}": value for name, value in environment.items()}
    return Replica(port, [str(PROGRAM), "serve"], named, folder / f"{port}.log")


def _end(group: Group) -> None:
    for party in [p for each in group for p in each.parties] + [*group.world.parties.values()]:
        party.channel.close()
    for each in group:
        if each.process is not None and each.process.poll() is None:
            each.stop(signal.SIGKILL)
    group.relay.close()
