"""A state folder and the users around it: what root does there stays the agent's, what went to
somebody else is named with the command that gives it back, and so is what cannot be made."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.__main__ import main
from agent.journal import Journal
from agent.owner import as_owner
from housecall.v1 import statements_pb2 as pb
from tests.agent.test_salvage import cut, filled
from tests.coordinator.world import world
from tests.somebody import run_as

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
USER = pwd.getpwnam("nobody")
SIGNER = ("spiffe://test/person/mona", f"sha256:{'a' * 64}")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of the agent's user; below /tmp itself, since the folders of tests are root's alone."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "state").mkdir(mode=0o700)
        for path in (folder, folder / "state"):
            os.chown(path, USER.pw_uid, USER.pw_gid)
        folder.chmod(0o755)
        monkeypatch.setenv("HOUSECALL_AGENT_STATE_DIR", str(folder / "state"))
        monkeypatch.setenv("HOUSECALL_AGENT_SOCKET", str(folder / "agent.sock"))
        yield folder


def done(*words: str) -> str:
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0, shown.output
    return shown.output


def state_as_the_agent() -> tuple[int, str]:
    """What the doctor says of it."""
    return as_the_agent("-m", "agent", "doctor", "--check", "state")


def as_the_agent(*words: str) -> tuple[int, str]:
    looked = run_as(USER, *words)
    return looked.returncode, looked.stdout + looked.stderr


def foreign(state: Path) -> list[str]:
    found = [state, *state.rglob("*")]
    return [str(path) for path in found if path.lstat().st_uid != USER.pw_uid]


def test_what_root_makes_belongs_to_the_folders_owner(site: Path, tmp_path: Path) -> None:
    token, state = tmp_path / "north.token", site / "state"
    with world(tmp_path / "coordinator") as coordinator:
        token.write_text(coordinator.token("north", pb.ROLE_SITE))
        token.chmod(0o600)
        done("enroll", "--token", f"@{token}")
    with as_owner(state):
        filled(state / "journal.sqlite")
    cut(state / "journal.sqlite", 0.9)
    done("recover-journal")
    done("trust", *SIGNER)
    assert foreign(state) == []
    assert (os.geteuid(), os.getegid()) == (0, 0), "and root is root again"
    assert state_as_the_agent()[0] == 0


def test_what_root_took_is_named_with_the_way_back(site: Path) -> None:
    state = site / "state"
    with as_owner(state):
        Journal(state / "journal.sqlite").close()
    for name in ("lock", "identity/tls.key"):
        (state / name).parent.mkdir(mode=0o700, exist_ok=True)
        (state / name).touch(0o600)
    os.chown(state / "journal.sqlite", 0, 0)
    code, text = state_as_the_agent()
    assert code == 4, text
    assert "journal.sqlite to root" in text
    fix = text.split("fix: as root: `")[1].split("`")[0]
    assert fix.startswith("chown -R nobody:")
    assert {f"{state}/{name}" for name in ("lock", "journal.sqlite", "identity")} <= {*fix.split()}
    as_root = CliRunner().invoke(main, ["doctor", "--check", "state"])
    assert fix in as_root.output
    subprocess.run(fix.split(), check=True)
    assert foreign(state) == []
    assert state_as_the_agent()[0] == 0


def test_what_its_owner_may_not_use_is_named(site: Path) -> None:
    lock = site / "state" / "lock"
    lock.touch(0o400)
    os.chown(lock, USER.pw_uid, USER.pw_gid)
    code, text = state_as_the_agent()
    assert (code, f"fix: chmod u+rwX {lock}" in text) == (4, True), text


def test_a_folder_that_cannot_be_made_is_made_by_root(site: Path) -> None:
    (site / "state").rmdir()
    os.chown(site, 0, 0)
    code, text = state_as_the_agent()
    assert code == 4
    assert f"`install -d -o nobody -m 0700 {site}/state`" in text
    assert f"`install -d -o nobody -m 0750 {site}`" in text
    (site / "state").mkdir(mode=0o700)
    os.chown(site / "state", USER.pw_uid, USER.pw_gid)
    code, text = state_as_the_agent()
    assert (code, "the socket's folder" in text) == (4, True)


def test_a_sockets_folder_that_systemd_makes_fails_nothing(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSECALL_AGENT_SOCKET", "/run/not-there/agent.sock")
    code, text = state_as_the_agent()
    assert (code, "nothing where systemd starts the agent" in text) == (0, True)


START = """
import sys
from pathlib import Path
from agent.local.relay import Relay
from housecall.errors import Refusal
try:
    Relay(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]).start()
except Refusal as refusal:
    print(refusal)
"""


def test_a_socket_that_cannot_be_put_into_its_folder(site: Path) -> None:
    (site / "run").mkdir(mode=0o755)
    for folder in (site / "run", site / "run" / "below"):
        text = as_the_agent("-c", START, str(folder / "agent.sock"), str(site / "in"), "")[1]
        assert "[CANNOT_LISTEN]" in text, text
        assert f"`install -d -o nobody -m 0750 {folder}`" in text


def test_a_group_that_the_agent_is_no_member_of(site: Path) -> None:
    text = as_the_agent("-c", START, str(site / "agent.sock"), str(site / "in"), "daemon")[1]
    assert "setting socket_group" in text, text
    assert "`usermod -aG daemon nobody`" in text
    assert "[SETTINGS_INVALID]" in text
