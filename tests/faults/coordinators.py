"""The coordinator: one process on SQLite, or replicas on one PostgreSQL, behind one address."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests import postgres
from tests.faults.clocks import WallClock
from tests.faults.disks import Disk
from tests.faults.programs import Keeper, Program, free_port, wait_for
from tests.faults.proxy import Link, Relay

TRUST_DOMAIN = "faults"
ROOT = Path(__file__).resolve().parents[2]
PREFIX = "HOUSECALL_COORDINATOR_"


class Postgres:
    """One server on a small disk at `place`, as a user who is not root."""

    def __init__(self, folder: Path, place: Path, keeper: Keeper, *, preload: Path | None) -> None:
        self.port = free_port()
        self.clock = WallClock(place.with_suffix(".clock"), preload)
        self._user = pwd.getpwnam("nobody").pw_uid
        self.disk = Disk(place, 320, mode="0700", uid=self._user)
        self.data = self.disk.path / "data"
        programs = postgres.programs()
        command = [str(programs / "initdb"), "-D", str(self.data), "-A", "trust", "-U", "housecall"]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            cwd="/",
            user=self._user,
            group=self._user,
            extra_groups=[],
        )
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n"
                "unix_socket_directories = ''\nmax_wal_size = 64MB\nwal_recycle = off\n"
            )
        self.program = keeper.add(
            Program(
                "postgres",
                [str(programs / "postgres"), "-D", str(self.data)],
                folder / "postgres.log",
                environment=self.clock.environment,
                user=self._user,
                directory=Path("/"),
            )
        )
        self.program.start()
        self._programs = programs
        wait_for(self._answers, "PostgreSQL answers")
        self._run("createdb", "housecall")

    def url(self, port: int) -> str:
        return f"postgresql+psycopg://housecall@127.0.0.1:{port}/housecall"

    def _answers(self) -> bool:
        return self._run("pg_isready", check=False) == 0

    def _run(self, program: str, *words: str, check: bool = True) -> int:
        command = [str(self._programs / program), "-h", "127.0.0.1", "-p", str(self.port)]
        command += ["-U", "housecall", *words]
        return subprocess.run(command, check=check, capture_output=True).returncode


class Replica:
    """One coordinator process, its store's address, and its wall clock."""

    def __init__(
        self, name: str, state: Path, keeper: Keeper, *, url: str, clock: WallClock
    ) -> None:
        self.port = free_port()
        self.state, self.url, self.clock = state, url, clock
        folder = clock.file.parent
        self.trap = folder.parent / "boundaries" / "coordinators" / name
        self.trap.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.faults.launch", "coordinator", "serve"]
        self.environment = {
            f"{PREFIX}STATE_DIR": str(self.state),
            f"{PREFIX}LISTEN": f"127.0.0.1:{self.port}",
            f"{PREFIX}DATABASE_URL": url,
            f"{PREFIX}DRAIN_SECONDS": "2",
        }
        extra = {"FAULTS_BOUNDARY": str(self.trap)}
        self.program = keeper.add(
            Program(
                name,
                command,
                folder / f"{name}.log",
                environment={**self.environment, **clock.environment, **extra},
                directory=ROOT,
            )
        )

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command of the coordinator's, with this one's settings and the true time."""
        return subprocess.run(
            [sys.executable, "-m", "coordinator", *words],
            env={**os.environ, **self.environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )


class Coordinators:
    """Founded, and serving behind the link `people`."""

    def __init__(
        self,
        folder: Path,
        place: Path,
        keeper: Keeper,
        relay: Relay,
        *,
        replicas: int,
        preload: Path | None,
    ) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.postgres = Postgres(folder, place, keeper, preload=preload) if replicas else None
        self.disk = self.postgres.disk if self.postgres else Disk(place, 64)
        self.replicas: list[Replica] = []
        self.store_links: list[Link] = []
        for number in range(max(replicas, 1)):
            name = f"coordinator-{number + 1}"
            home = folder / name if self.postgres else self.disk.path
            home.mkdir(exist_ok=True)
            url = ""
            if self.postgres:
                link = relay.add(f"{name}-store", [self.postgres.port])
                self.store_links.append(link)
                url = self.postgres.url(link.port)
            clock = WallClock(folder / f"{name}.clock", preload)
            replica = Replica(name, home / "state", keeper, url=url, clock=clock)
            self.replicas.append(replica)
        self.ports = [replica.port for replica in self.replicas]
        self.people = relay.add("people", self.ports)
        self._found(folder / "olga.token")

    @property
    def url(self) -> str:
        """Of the store itself, past the links."""
        if self.postgres:
            return self.postgres.url(self.postgres.port)
        return f"sqlite:///{self.replicas[0].state / 'coordinator.db'}"

    def close(self) -> None:
        self.disk.copy_out(self._folder / "kept")
        self.disk.close()

    def _found(self, token: Path) -> None:
        first, *others = self.replicas
        words = ["--trust-domain", TRUST_DOMAIN, "--operator", "olga", "--token-out", str(token)]
        done = first.run("init", "--address", self.people.address, *words)
        if done.returncode:
            raise RuntimeError(f"housecall-coordinator init: {done.stderr}")
        self.token = token
        for replica in others:
            shutil.copytree(first.state, replica.state)
        for replica in self.replicas:
            replica.program.start()
