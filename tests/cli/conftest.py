"""The CLI against real gRPC: a fake agent on a Unix socket, a fake coordinator over mutual TLS."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from click.testing import CliRunner, Result

from cli import ask
from cli.__main__ import root
from housecall.identity import Identity
from housecall.v1.authority_pb2_grpc import add_AuthorityServicer_to_server
from housecall.v1.ledger_pb2_grpc import add_LedgerServicer_to_server
from housecall.v1.registry_pb2_grpc import add_RegistryServicer_to_server
from housecall.v1.site_pb2_grpc import add_SiteApiServicer_to_server
from tests.cli.certificates import TestAuthority
from tests.cli.fake_ledger import FakeLedger
from tests.cli.fake_registry import ADA, FakeRegistry
from tests.cli.fake_site import FakeSite


@dataclass
class World:
    """Both ends and the CLI. `run` runs it; stdout and stderr are apart in the result."""

    home: Path
    socket: Path
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    site: FakeSite = field(default_factory=FakeSite)
    authority: TestAuthority = field(default_factory=TestAuthority)
    address: str = ""
    stop: Callable[[], object] = lambda: None
    """Ends the server, and every call with it."""

    def __post_init__(self) -> None:
        self.ledger.registered = self.registry.signed.get

    @property
    def environment(self) -> dict[str, str]:
        return {"HOUSECALL_HOME": str(self.home), "HOUSECALL_SOCKET": str(self.socket)}

    def run(self, *words: str, typed: str = "") -> Result:
        return CliRunner().invoke(root, list(words), input=typed, env=self.environment)

    def done(self, *words: str) -> str:
        """Standard output of a command that must succeed."""
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.done(*words, "--output", "json"))

    def enrol(self, *, age: timedelta = timedelta(hours=1), profile: str = "") -> Identity:
        """Give the CLI's user an identity that the ledger knows."""
        person = self.authority.person(ADA, self.address, self.ledger.verifier_key, age=age)
        self.ledger.introduce(ADA, person.signing_key)
        base = self.home / "profiles" / profile if profile else self.home
        person.save(base / "identity")
        return person


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(home=tmp_path / "home", socket=tmp_path / "agent.sock")


@pytest.fixture
def at_site(world: World) -> Iterator[World]:
    """An agent runs here; nobody has an identity."""
    world.site.verifier_key = world.ledger.verifier_key
    with _server(world) as server:
        add_SiteApiServicer_to_server(cast(Any, world.site), server)
        server.add_insecure_port(f"unix:{world.socket}")
        server.start()
        yield world


@pytest.fixture
def elsewhere(world: World) -> Iterator[World]:
    """A coordinator runs; the user is enrolled as ada."""
    with _server(world) as server:
        add_AuthorityServicer_to_server(cast(Any, world.ledger), server)
        credentials = grpc.ssl_server_credentials(
            [world.authority.server()], world.authority.root_pem, require_client_auth=True
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        world.address = f"127.0.0.1:{port}"
        world.ledger.certified = [world.authority.root_der]
        world.enrol()
        server.start()
        yield world


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Questions are asked although the test has no terminal."""
    monkeypatch.setattr(ask, "has_terminal", lambda: True)
    return lambda: None


@contextlib.contextmanager
def _server(world: World) -> Iterator[grpc.Server]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        add_RegistryServicer_to_server(cast(Any, world.registry), server)
        add_LedgerServicer_to_server(cast(Any, world.ledger), server)
        world.stop = lambda: server.stop(None).wait()
        yield server
        world.stop()
