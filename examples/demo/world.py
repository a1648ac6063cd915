"""The demo world's people, sites and programs, below one folder (`.demo/world`).

Each person has a home of their own for the CLI, each site an agent with its own state, socket,
policy and raw data; `<who>.env` sets up a shell as that person or site.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.breast_cancer.data import write_site
from examples.breast_cancer.train import Weights, write_weights
from examples.demo import processes
from examples.demo.processes import DemoError

TRUST_DOMAIN = "demo"
HOSPITALS = ("north", "south", "east")
REFERENCE = "reference"
OPERATOR, COMMITTEE, MODEL_OWNER = "olga", "carla", "mona"
PROGRAMS = Path(sys.executable).parent
COMMAND_SECONDS = 900

Say = Callable[[str], None]


@dataclass
class World:
    """Where everything is. `sockets` is short-lived and short: a socket's path has a limit."""

    folder: Path
    say: Say
    sockets: Path = Path()
    port: int = 0
    files_port: int = 0
    weights: dict[str, Weights] = field(default_factory=dict)

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    def raw(self, site: str) -> Path:
        return self.folder / "sites" / site / "raw"

    def policy(self, site: str) -> Path:
        return self.folder / "sites" / site / "policy.yaml"

    def environment(self, who: str) -> dict[str, str]:
        """What the CLI of a person, or of a site's people, needs to know."""
        socket_path = self.sockets / f"{who}.sock"
        if who in (*HOSPITALS, REFERENCE):
            home = self.folder / "sites" / who / "home"
            return {"HOUSECALL_SOCKET": str(socket_path), "HOUSECALL_HOME": str(home)}
        return {"HOUSECALL_HOME": str(self.folder / "people" / who)}

    def run(self, who: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `housecall` as somebody, shown as they would type it."""
        self.say(f"  {who}$ housecall {shlex.join(words)}")
        done = subprocess.run(
            [str(PROGRAMS / "housecall"), *words],
            env={**os.environ, **self.environment(who)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if check and done.returncode:
            raise DemoError(
                f"housecall {shlex.join(words)} ended with {done.returncode} at {who}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def json(self, who: str, *words: str, check: bool = True) -> Any:
        """The same, for its JSON answer."""
        done = self.run(who, *words, "--output", "json", check=check)
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise DemoError(
                f"housecall {shlex.join(words)}: expected JSON, got {error}\n{done.stdout}"
                f"{done.stderr}"
            ) from error


def build(folder: Path, say: Say) -> World:
    """A fresh world: data, weights, coordinator, people, agents. Nothing is registered yet."""
    shutil.rmtree(folder, ignore_errors=True)
    world = World(folder, say, sockets=Path(tempfile.mkdtemp(prefix="housecall-")))
    world.sockets.chmod(0o755)
    world.port, world.files_port = _free_port(), _free_port()
    say("writing each site's raw data and training the models")
    world.weights = write_weights(folder / "files")
    for site in (*HOSPITALS, REFERENCE):
        write_site(site, world.raw(site))
    say("starting the coordinator and the model owner's file server")
    _start_coordinator(world)
    _start_file_server(world)
    say("enrolling people and sites, each with a join token of its own")
    _enrol_people(world)
    for site in (*HOSPITALS, REFERENCE):
        _start_agent(world, site)
    for who in (OPERATOR, COMMITTEE, MODEL_OWNER, *HOSPITALS, REFERENCE):
        _write_shell(world, who)
    (folder / "sockets.txt").write_text(str(world.sockets))
    return world


def tear_down(folder: Path, say: Say) -> None:
    """Stop every program of the world in `folder`; files stay for a look."""
    processes.stop_all(folder / "log", say)
    marker = folder / "sockets.txt"
    if marker.exists():
        shutil.rmtree(marker.read_text(), ignore_errors=True)
        marker.unlink()


def _start_coordinator(world: World) -> None:
    state = world.folder / "coordinator"
    program = str(PROGRAMS / "housecall-coordinator")
    address = f"127.0.0.1:{world.port}"
    token = world.folder / "olga.token"
    init = ["init", "--trust-domain", TRUST_DOMAIN, "--address", address, "--operator", OPERATOR]
    done = subprocess.run(
        [program, *init, "--state-dir", str(state), "--token-out", str(token)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"housecall-coordinator init failed\n{done.stderr}")
    serve = [program, "serve", "--state-dir", str(state), "--listen", address]
    processes.start("coordinator", serve, world.logs, {})
    processes.await_condition(
        "the coordinator answers", lambda: _listens(world.port), "coordinator", world.logs
    )
    world.run(OPERATOR, "enroll", "--token", f"@{token}")


def _start_file_server(world: World) -> None:
    """The model owner publishes weights at a URL; agents check them by digest."""
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]
    command += ["--directory", str(world.folder / "files"), str(world.files_port)]
    processes.start("files", command, world.logs, {})
    processes.await_condition(
        "the file server answers", lambda: _listens(world.files_port), "files", world.logs
    )


def _enrol_people(world: World) -> None:
    for person in (COMMITTEE, MODEL_OWNER):
        token = world.folder / f"{person}.token"
        world.run(OPERATOR, "admin", "token", "create", "--person", person, "--out", str(token))
        world.run(person, "enroll", "--token", f"@{token}")


def _start_agent(world: World, site: str) -> None:
    state = world.folder / "sites" / site / "state"
    token = world.folder / f"{site}.token"
    world.run(OPERATOR, "admin", "token", "create", "--site", site, "--out", str(token))
    world.policy(site).write_text("rules: []\n")
    config = world.folder / "sites" / site / "agent.toml"
    config.write_text(
        f'state_dir = "{state}"\n'
        f'socket = "{world.sockets / site}.sock"\n'
        f'allowed_paths = ["{world.raw(site)}"]\n'
        f'policy_file = "{world.policy(site)}"\n'
        "allow_pull = false\n"
        "allow_private_sources = true\n"
        "disk_reserve_bytes = 100000000\n"
    )
    program = str(PROGRAMS / "housecall-agent")
    done = subprocess.run(
        [program, "enroll", "--config", str(config), "--token", f"@{token}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"housecall-agent enroll failed at {site}\n{done.stdout}{done.stderr}")
    processes.start(site, [program, "serve", "--config", str(config)], world.logs, {})
    processes.await_condition(
        f"the agent of {site} is connected", lambda: _connected(world, site), site, world.logs
    )


def _connected(world: World, site: str) -> bool:
    if not (world.sockets / f"{site}.sock").exists():
        return False
    quiet = World(world.folder, lambda _line: None, world.sockets)
    done = quiet.run(site, "site", "status", "--output", "json", check=False)
    return done.returncode == 0 and bool(json.loads(done.stdout)["connected"])


def _write_shell(world: World, who: str) -> None:
    variables = world.environment(who).items()
    lines = ["unset HOUSECALL_SOCKET HOUSECALL_PROFILE RAW"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables]
    lines.append(f'export PATH={shlex.quote(str(PROGRAMS))}:"$PATH"')
    if who in (*HOSPITALS, REFERENCE):
        lines.append(f"export RAW={shlex.quote(str(world.raw(who)))}")
    (world.folder / f"{who}.env").write_text("\n".join(lines) + "\n")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
