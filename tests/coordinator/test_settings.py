"""Settings that cannot be are refused by name, in one line that holds no secret."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

import agent.settings
from coordinator.founding import found
from coordinator.options import read_settings
from coordinator.port import listen
from coordinator.settings import CONFIG_VARIABLE, Settings
from coordinator.store.databases import parse_url
from housecall.errors import Kind, Refusal
from tests.coordinator.test_daemon import run


def refused(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    assert "sesame" not in caught.value.message
    assert "pydantic" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('log_level = "loud"', "setting log_level (or HOUSECALL_COORDINATOR_LOG_LEVEL): "),
        ("threads = 0", "setting threads (or HOUSECALL_COORDINATOR_THREADS): "),
        ("threads =", "coordinator.toml: expected TOML, got "),
        ('listen = "127.0.0.1:99999"', "setting listen (or HOUSECALL_COORDINATOR_LISTEN): "),
        ('listen = "localhost"', "expected host:port"),
        ('database_url = ["postgresql://u:sesame@h/d"]', "setting database_url"),
        ('database_url = "postgresql://u:sesame@h:54a/d"', "database_url: expected"),
        ('database_url = "postgresql://u:p@h/d?pasword=sesame"', "most like password"),
        ('archive_dir = "here"', "expected an absolute path other than state_dir"),
    ],
)
def test_a_wrong_setting_is_named(
    tmp_path: Path, line: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, "")
    file = tmp_path / "coordinator.toml"
    file.write_text(line)
    refusal = refused(lambda: read_settings(file))
    assert (refusal.kind, refusal.code) == (Kind.INVALID, "SETTINGS_INVALID")
    assert words in refusal.message


def test_the_program_says_it_in_a_line(tmp_path: Path) -> None:
    variables = {
        "HOUSECALL_COORDINATOR_LOG_LEVEL": "loud",
        "HOUSECALL_COORDINATOR_DATABASE_URL": "postgresql://u:ses#ame@h:54a/d",
    }
    for name, value in variables.items():
        done = run("serve", "--state-dir", str(tmp_path), **{name: value})
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "ses" not in done.stderr


def test_a_settings_file_that_is_none_is_the_same_no_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "none.toml"
    said = {
        (refusal.kind, refusal.code, refusal.message)
        for refusal in (
            refused(lambda: read_settings(file)),
            refused(lambda: agent.settings.load(file)),
        )
    }
    assert [each[:2] for each in said] == [(Kind.INVALID, "CONFIG_MISSING")]
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    assert refused(lambda: read_settings(None)).code == "CONFIG_MISSING"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h:5432/d?sslmode=verify-full&sslrootcert=/ca.pem",
        "postgresql://u:p@/d?host=a:1&host=b:2&target_session_attrs=read-write",
        "sqlite:////var/lib/x.db",
    ],
)
def test_a_url_of_a_database_is_taken(url: str) -> None:
    assert Settings(database_url=url).store_url == url
    parse_url(url)


def test_why_it_cannot_listen_is_said(tmp_path: Path) -> None:
    house = found(Settings(state_dir=tmp_path / "c"), "test", "127.0.0.1:1")

    async def no(address: str) -> str:
        server = grpc.aio.server()
        with pytest.raises(Refusal) as caught:
            listen(server, address, house)
        await server.stop(0)
        assert caught.value.code == "CANNOT_LISTEN"
        return caught.value.message

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert "Address already in use" in asyncio.run(no(f"127.0.0.1:{port}"))
    assert "Cannot assign requested address" in asyncio.run(no("192.0.2.1:8443"))
