"""Variables that name no setting are refused; what is there for good reasons is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import agent.settings
from coordinator.options import read_settings
from housecall.errors import Kind, Refusal

READERS: dict[str, Callable[[], object]] = {
    "AGENT": lambda: agent.settings.load(None),
    "COORDINATOR": lambda: read_settings(None),
}
program = pytest.mark.parametrize("program", READERS)


def refused(program: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        READERS[program]()
    return caught.value


@program
def test_a_variable_that_names_no_setting_is_refused(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"HOUSECALL_{program}_STATEDIR", "/secret")
    refusal = refused(program)
    assert (refusal.kind, refusal.code) == (Kind.INVALID, "SETTINGS_INVALID")
    assert refusal.message == (
        f"variable HOUSECALL_{program}_STATEDIR: there is no setting of that name, the nearest is "
        f"HOUSECALL_{program}_STATE_DIR; see docs/settings-{program.lower()}.md"
    )


@program
def test_all_of_them_are_named(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"housecall_{program.lower()}_loglevel", "debug")
    monkeypatch.setenv(f"HOUSECALL_{program}_QQQ", "1")
    message = refused(program).message
    assert f"variable HOUSECALL_{program}_QQQ: there is no setting of that name; " in message
    assert f"the nearest is HOUSECALL_{program}_LOG_LEVEL; see" in message


@program
def test_what_belongs_there_is_taken(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "settings.toml").write_text('log_format = "text"\n')
    for name, value in {
        f"HOUSECALL_{program}_CONFIG": str(tmp_path / "settings.toml"),
        f"housecall_{program.lower()}_log_level": "debug",
        f"HOUSECALL_{program}S": "of another program",
        "HOUSECALL_HOME": "/home/dora/.housecall",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        f"HOUSECALL_{program}_SERVICE_HOST": "10.0.0.1",
        f"HOUSECALL_{program}_SERVICE_PORT_GRPC": "8443",
        f"HOUSECALL_{program}_PORT": "tcp://10.0.0.1:8443",
        f"HOUSECALL_{program}_PORT_8443_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    READERS[program]()


@pytest.mark.parametrize("name", ["SERVICE", "PORTS", "PORT_8443", "SERVICE_HOSTS"])
def test_only_what_kubernetes_says_is_let_through(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"HOUSECALL_COORDINATOR_{name}", "1")
    assert name in refused("COORDINATOR").message
