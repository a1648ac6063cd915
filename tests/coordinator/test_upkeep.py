"""Commands at the machine: what a backup leaves behind, and what is said where something is wrong
with files. Root without its power over files stands for a user without rights."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.store import Store
from coordinator.store.backups import Backup, last_backup
from tests.coordinator.test_daemon import PROGRAM, init, run

NOBODY = 65534


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    assert init(folder, 1).returncode == 0
    return folder


def run_without_rights(*words: str, state: Path) -> subprocess.CompletedProcess[str]:
    setpriv = shutil.which("setpriv")
    assert setpriv, "util-linux has it"
    return subprocess.run(
        [setpriv, "--bounding-set", "-dac_override,-dac_read_search", str(PROGRAM), *words],
        env={**os.environ, "HOUSECALL_COORDINATOR_STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def require_said(done: subprocess.CompletedProcess[str], code: str, *texts: str) -> None:
    assert done.returncode in (2, 7, 8), done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(f"[{code}]")
    for text in texts:
        assert text in last
    assert "Traceback" not in done.stderr


def test_a_backup_is_noted_in_the_store(state: Path, tmp_path: Path) -> None:
    done = run("backup", "--state-dir", str(state), str(tmp_path / "backup"))
    assert done.returncode == 0, done.stderr
    noted = noted_in(state)
    assert noted is not None
    assert noted.ledger_size == 2
    assert noted_in(tmp_path / "backup") is None
    assert run("check", "--state-dir", str(state)).returncode == 0


def noted_in(folder: Path) -> Backup | None:
    url = f"sqlite:///{folder / 'coordinator.db'}"
    with contextlib.closing(Store(url)) as store, store.read() as reader:
        return last_backup(reader, datetime.now(UTC))


def test_a_backup_that_finds_no_room_says_where(
    state: Path, small_disk: Path, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(2 << 20))
    out = small_disk / "backup"
    done = run("backup", "--state-dir", str(state), str(out))
    require_said(done, "BACKUP_NO_ROOM", str(out), "make room")
    assert [each.name for each in small_disk.iterdir()] == ["filler"]


def test_a_state_folder_without_rights(state: Path, tmp_path: Path) -> None:
    os.chown(state, NOBODY, NOBODY)
    for words in (["serve"], ["check"], ["migrate"], ["backup", str(tmp_path / "backup")]):
        require_said(run_without_rights(*words, state=state), "FILE_FAILED", str(state), "rights")
    assert not (tmp_path / "backup").exists()


def test_a_store_that_may_only_be_read_is_not_served(state: Path) -> None:
    path = state / "coordinator.db"
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o644)
    done = run_without_rights("serve", state=state)
    require_said(done, "STORE_UNREADABLE", "cannot write", str(path))
