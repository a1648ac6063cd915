"""A real PostgreSQL for tests: one server a session on a Unix socket, a fresh database a test.

The server's programs are found, or installed by apt-get where they are missing and root runs the
tests. PostgreSQL refuses to run as root: then `nobody` runs it. It keeps its files in a folder that
goes away with it, and does not wait for the disk: what it said yes to survives its own crash, and
need not survive a power cut.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from examples import apt
from tests.faults.programs import descendants

START_S = 60.0
USER = "housecall"
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "200",
    "autovacuum": "off",
}


def programs() -> Path:
    """The folder of `initdb` and `postgres`."""
    found = _installed()
    if found is None and apt.available():
        apt.install("postgresql")
        found = _installed()
    if found is None:
        raise RuntimeError(
            "no PostgreSQL server: `apt-get install postgresql`, or put initdb and "
            "postgres on the PATH"
        )
    return found


def _installed() -> Path | None:
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    whole = (f for f in folders if (f / "postgres").exists() and (f / "initdb").exists())
    return next(whole, None)


def _as_nobody() -> dict[str, Any]:
    """Who runs it, and from where: `nobody` may not look into every folder."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}


@dataclass
class Server:
    """A running server; `port` is only a part of its socket's name."""

    folder: Path
    port: int = 5432
    process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, database: str) -> str:
        """SQLAlchemy's URL, over the Unix socket."""
        where = f"host={self.folder}&port={self.port}"
        return f"postgresql+psycopg://{USER}@/{database}?{where}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        where = {"host": str(self.folder), "port": self.port, "user": USER, "dbname": database}
        return psycopg.connect(**where, autocommit=True)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The name of a new database, a copy of `template`; dropped with whoever is connected."""
        name = f"t{next(self._numbers)}"
        with self.connect() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield name
        finally:
            with self.connect() as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def start(self) -> None:
        flags = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command = [
            str(programs() / "postgres"),
            "-D",
            str(self.folder / "data"),
            "-p",
            str(self.port),
            "-k",
            str(self.folder),
            "-clisten_addresses=",
            *flags,
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends it last
                **_as_nobody(),
            )
        self._await()

    def _await(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                return self.connect().close()
            except psycopg.OperationalError:
                assert self.process is not None
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = (self.folder / "log").read_text()[-2000:]
                    raise RuntimeError(f"PostgreSQL did not start:\n{log}") from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGINT throws everyone out first; SIGQUIT leaves at once, as in a crash."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Every one of its processes is stopped and none is dead."""
        assert self.process is not None
        pids = [self.process.pid]
        os.kill(pids[0], signal.SIGSTOP)  # it begins no new ones
        pids += descendants(pids[0])
        try:
            for pid in pids[1:]:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def without_its_standby(self) -> Iterator[None]:
        """Soon no COMMIT returns: a synchronous standby is configured, and is away."""
        self._configure("SET synchronous_standby_names = 'away'")
        try:
            yield
        finally:
            self._configure("RESET synchronous_standby_names")

    def _configure(self, change: str) -> None:
        with self.connect() as admin:
            admin.execute(f"ALTER SYSTEM {change}")
            admin.execute("SELECT pg_reload_conf()")

    def commits_that_wait(self) -> int:
        """For the standby."""
        with self.connect() as admin:
            asked = "SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            (found,) = admin.execute(asked).fetchone() or (0,)
        return int(str(found))


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server of one's own."""
    folder = Path(tempfile.mkdtemp(prefix="hc-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    made = Server(folder)
    try:
        subprocess.run(
            [
                str(programs() / "initdb"),
                "-D",
                str(folder / "data"),
                "-U",
                USER,
                "-A",
                "trust",
                "--no-sync",
                "--locale=C",
                "--locale-provider=icu",
                "--icu-locale=en-US",
                "-E",
                "UTF8",
            ],
            check=True,
            capture_output=True,
            timeout=120,
            **_as_nobody(),
        )
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
