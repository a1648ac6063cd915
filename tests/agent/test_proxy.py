"""The coordinator behind an HTTP proxy, for agents and for people: real TLS through a real one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.__main__ import main
from agent.identity import enrol
from agent.server import Agent
from agent.settings import Settings, load
from housecall import client, tokens
from housecall.errors import Refusal
from housecall.identity import Identity
from housecall.proxy import parse
from housecall.v1 import registry_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.double import point_at
from tests.agent.site import Bench, Site, wait_for
from tests.coordinator.world import free_port
from tests.housecall.connect_proxy import ConnectProxy, connect_proxy

ADDRESS = "coordinator.hospital.example:7443"
"""Nobody resolves it but the proxy."""
USER = "north:p@ss/wö:rd %"


@contextlib.contextmanager
def proxied(bench: Bench, user: str = "", status: int = 200) -> Iterator[ConnectProxy]:
    host, port = bench.world.house.address.split(":")
    with connect_proxy({ADDRESS: (host, int(port))}, user, status) as made:
        yield made


@contextlib.contextmanager
def behind(bench: Bench, folder: Path, proxy: ConnectProxy) -> Iterator[Agent]:
    """An agent that knows no other way, whether the link comes up or not."""
    settings = site.enrolled(bench, folder, proxy=proxy.url)
    point_at(settings, ADDRESS)
    with Agent(settings, lambda _: bench.engine) as agent:
        yield agent


def test_everything_goes_through_the_proxy(bench: Bench, tmp_path: Path) -> None:
    with proxied(bench, USER) as proxy, behind(bench, tmp_path, proxy) as agent:
        north = Site(bench, tmp_path, agent.settings, agent)
        north.wait_linked()
        assert north.register() == "north/1"
        agent.uplink.renew()
        assert set(proxy.asked) == {f"CONNECT {ADDRESS}"}
        assert len(proxy.asked) >= 3  # the stream, the unary calls, the renewal


def test_enrolment_goes_through_the_proxy(bench: Bench, tmp_path: Path) -> None:
    token = tokens.read(bench.world.token("south", pb.ROLE_SITE))
    token.address = ADDRESS
    with proxied(bench, USER) as proxy:
        identity = enrol(tokens.write(token), tmp_path / "id", parse(proxy.url))
        assert identity.address == ADDRESS
        assert "north" not in repr(identity.proxy)


@pytest.mark.parametrize(
    ("user", "status", "code", "words"),
    [
        (USER, 200, "PROXY_REFUSED", "407: it wants a user and a password"),
        ("", 403, "PROXY_REFUSED", "403: it does not allow this address"),
        ("", 502, "UNREACHABLE", "502: it cannot reach the coordinator"),
        ("", 0, "PROXY_UNREACHABLE", "hung up without an answer"),
    ],
)
def test_a_proxy_that_does_not_is_named(
    bench: Bench, tmp_path: Path, user: str, status: int, code: str, words: str
) -> None:
    with proxied(bench, user, status=status) as proxy:
        settings = site.enrolled(bench, tmp_path, proxy=f"http://{proxy.name}")
        point_at(settings, ADDRESS)
        with Agent(settings, lambda _: bench.engine) as agent:
            wait_for(lambda: agent.link.state.problem)
            problem = agent.link.state.problem
            assert f"proxy {proxy.name} on the way to {ADDRESS}" in problem
            assert words in problem
            assert f"[{code}]" in problem
            proxy.user, proxy.status = "", 200
            wait_for(lambda: agent.link.state.connected)


def test_a_wrong_password_is_told_and_never_shown(bench: Bench, tmp_path: Path) -> None:
    with proxied(bench, "north:right") as proxy:
        settings = site.enrolled(bench, tmp_path)
        point_at(settings, ADDRESS)
        given = parse(f"http://north:wrong@{proxy.name}")
        identity = Identity.load(settings.identity_dir, given)
        with pytest.raises(Refusal) as caught:
            client.renew(identity, tmp_path / "id")
        assert caught.value.code == "PROXY_REFUSED"
        assert "does not accept the user and password" in caught.value.message
        assert "wrong" not in str(caught.value) + repr(given)


def test_no_proxy_at_all_is_told(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path, proxy=f"http://127.0.0.1:{free_port()}")
    point_at(settings, ADDRESS)
    with Agent(settings, lambda _: bench.engine) as agent:
        wait_for(lambda: "[PROXY_UNREACHABLE]" in agent.link.state.problem)
        assert "Connection refused" in agent.link.state.problem


def test_a_slow_proxy_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    with proxied(bench) as proxy:
        proxy.delay_s = 1.0
        with behind(bench, tmp_path, proxy) as agent:
            wait_for(lambda: agent.link.state.connected)


def test_a_proxy_that_dies_half_way_costs_nothing(bench: Bench, tmp_path: Path) -> None:
    with proxied(bench) as proxy, behind(bench, tmp_path, proxy) as agent:
        north = Site(bench, tmp_path, agent.settings, agent)
        north.wait_linked()
        since = agent.link.state.connected_at
        proxy.cut()
        draft = north.draft("DraftDataset", north.registration())
        north.release(draft)
        wait_for(lambda: agent.link.state.connected_at > since)
        wait_for(lambda: north.dataset().accepted)
        found = bench.world.operator.registry.ListDatasets(registry_pb2.ListDatasetsRequest())
        assert [dataset.id for dataset in found.datasets] == ["north/1"]


def test_people_use_the_environments_proxy(bench: Bench, tmp_path: Path) -> None:
    home = tmp_path / "home"
    carla = bench.carla.identity
    dataclasses.replace(carla, address=ADDRESS).save(home / "identity")
    program = Path(sys.executable).parent / "housecall"

    def whoami(**environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "whoami"],
            env={"HOUSECALL_HOME": str(home), "PATH": os.environ["PATH"]} | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    with proxied(bench, USER) as proxy:
        found = whoami(HTTPS_PROXY=proxy.url)
        assert found.returncode == 0, found.stderr
        assert "carla" in found.stdout
        refused = whoami(https_proxy=f"http://{proxy.name}")
        assert refused.returncode == 8
        assert "[PROXY_REFUSED]" in refused.stderr
        direct = whoami(HTTPS_PROXY=proxy.url, NO_PROXY="hospital.example")
        assert "[UNREACHABLE]" in direct.stderr
        assert "proxy" not in direct.stderr
        assert set(proxy.asked) == {f"CONNECT {ADDRESS}"}


def test_settings_show_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    monkeypatch.setenv("HOUSECALL_AGENT_PROXY", "http://me:s3@cret@proxy.example:3128")
    shown = CliRunner().invoke(main, ["settings"]).output
    assert "proxy = http://***@proxy.example:3128" in shown
    assert "s3" not in shown
    monkeypatch.setenv("HOUSECALL_AGENT_PROXY_PASSWORD_FILE", str(secret))
    given = load(None).outward().proxy
    assert given == parse("http://me:s3cret@proxy.example:3128")
    assert "s3cret" not in repr(load(None)) + repr(given)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("proxy", "https://me:s3cret@proxy:1", "scheme http"),
        ("proxy", "http://me:s3cret@proxy:none", "a URL"),
        ("proxy", "http://:s3cret@proxy:1", "a user for the password"),
        ("proxy", "http://proxy:1/path", "host:port"),
        ("proxy_password_file", "/nowhere/s3cret", "proxy_password_file"),
        ("ca_file", "/dev/null", "ca_file"),
    ],
)
def test_settings_that_cannot_work_are_named(name: str, value: str, words: str) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        Settings(**{name: value}).outward()  # type: ignore[arg-type]
    assert caught.value.code in ("PROXY_INVALID", "SETTINGS_INVALID")
    assert "s3cret" not in str(caught.value) or name != "proxy"
