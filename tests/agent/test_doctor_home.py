"""The doctor at the site: settings, modes, journal, disk, the agent itself; and the command."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.__main__ import main
from agent.doctor import home, machine
from agent.doctor.examination import NAMES
from agent.doctor.finding import Level, Verdict
from agent.doctor.scene import Scene
from agent.engines.docker.diagnosis import Diagnosis
from agent.journal import Journal
from agent.journal_schema import SCHEMA_VERSION
from agent.settings import load
from housecall.errors import EXIT_CODES, Kind
from tests.agent.patient import Patient, patient
from tests.agent.small import fill, small_disk

LOCAL = ("settings", "state", "journal", "datasets", "agent", "disk", "time")


@pytest.fixture
def site(tmp_path: Path) -> Patient:
    return patient(tmp_path)


def test_a_site_without_fault(site: Patient) -> None:
    Journal(site.state / "journal.sqlite").close()
    found = site.look(*LOCAL)
    assert found["settings"].found == f"from {site.config}; no policy: every order asks"
    assert "0700" in found["state"].found
    assert found["journal"].found.startswith(f"journal.sqlite is whole, schema {SCHEMA_VERSION}, 0")
    assert {each for each in LOCAL if found[each].level is Level.FAILED} == set()


def test_settings_that_cannot_be_read_stop_what_needs_them(site: Patient) -> None:
    site.config.write_text('slots = "many"')
    found = site.look()
    assert (found["settings"].level, found["settings"].code) == (Level.FAILED, "SETTINGS_INVALID")
    assert "slots" in found["settings"].found
    assert found["state"].found == "needs settings"
    assert found["time"].level in (Level.OK, Level.WARNING)
    assert [each for each in found if found[each].level is Level.FAILED] == ["settings"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slot = 1", "there is no setting of that name, the nearest is slots"),
        ('proxy = "http://dora:hunter2@x"\nslots = 0', "greater than or equal to 1, got 0"),
        ("slots =", "expected TOML, got Invalid value (at end of document)"),
    ],
)
def test_wrong_settings_come_with_their_page(site: Patient, text: str, said: str) -> None:
    site.config.write_text(text)
    found = site.look("settings")["settings"]
    assert found.found.endswith(said)
    assert (found.kind, found.fix) == (Kind.INVALID, "see docs/settings-agent.md")


def test_settings_that_others_may_change(site: Patient) -> None:
    site.config.chmod(0o664)
    found = site.look("settings")["settings"]
    assert (found.level, found.fix) == (Level.WARNING, f"chmod go-w {site.config}")


def test_a_policy_that_cannot_be_read(site: Patient) -> None:
    policy = site.folder / "policy.yaml"
    policy.write_text("rules: 3")
    site.settle(policy_file=str(policy))
    assert site.look("settings")["settings"].code == "POLICY_INVALID"


def test_folders_that_datasets_cannot_lie_in(site: Patient) -> None:
    site.settle(allowed_paths=[str(site.folder / "gone")])
    assert "gone is no folder" in site.look("settings")["settings"].found
    site.settle(allowed_paths=[])
    assert "no dataset can be registered" in site.look("settings")["settings"].found


@pytest.mark.parametrize("name", ["", "identity/tls.key", "identity/signing.key"])
def test_what_others_may_enter(site: Patient, name: str) -> None:
    path = site.state / name
    if name:
        path.parent.mkdir(mode=0o700)
        path.touch()
    path.chmod(0o755 if path.is_dir() else 0o644)
    found = site.look("state")["state"]
    mode = "700" if path.is_dir() else "600"
    assert (found.level, found.kind) == (Level.FAILED, Kind.NOT_ALLOWED)
    assert found.fix == f"chmod {mode} {path}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_state_folder_of_another_user(site: Patient) -> None:
    os.chown(site.state, 12345, -1)
    found = site.look("state")["state"]
    assert found.fix == "run agent and doctor as 12345"
    assert "this runs as root" in found.found


def test_a_site_that_is_not_there_yet(tmp_path: Path) -> None:
    made = Patient(tmp_path)
    made.settle()
    found = made.look("state", "journal", "identity")
    assert (found["state"].kind, found["identity"].code) == (Kind.NOT_READY, "NOT_ENROLLED")
    assert found["journal"].level is Level.SKIPPED


def test_a_disk_that_is_full(site: Patient) -> None:
    with small_disk(site.state):
        fill(site.state)
        found = site.look("state", "disk")
        site.settle(disk_reserve_bytes=4096)
        later = site.look("disk")["disk"]
    assert (found["state"].level, found["state"].kind) == (Level.FAILED, Kind.EXHAUSTED)
    assert "No space left" in found["state"].found
    assert (later.level, later.kind) == (Level.FAILED, Kind.EXHAUSTED)
    assert "0.0 MiB free" in later.found


def a_step_once_wrote(journal: Path, size: int) -> None:
    Journal(journal).close()
    with closing(sqlite3.connect(journal)) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(steps)")]
        values = [size if name == "bytes" else "" for name in names]
        db.execute(f"INSERT INTO steps VALUES ({', '.join('?' * len(values))})", values)
        db.commit()


def test_room_that_the_largest_step_would_take(site: Patient) -> None:
    with small_disk(site.state):
        a_step_once_wrote(site.state / "journal.sqlite", 2**40)
        found = site.look("disk")["disk"]
    assert found.level is Level.WARNING
    assert "a step once wrote 1024.0 GiB" in found.found


def test_a_state_that_is_short_hides_no_engine_that_is_full(site: Patient) -> None:
    a_step_once_wrote(site.state / "journal.sqlite", 2**60)
    scene = Scene(site.config)
    with small_disk(site.folder / "engine"):
        scene.engine = Diagnosis(
            *("unix:///run/docker.sock", "docker", "", "", "", "2", False, "", ""),
            root_dir=site.folder / "engine",
            images=(),
        )
        assert machine.disk(scene).level is Level.WARNING
        site.settle(disk_reserve_bytes=2**20 + 1)
        scene.settings = load(site.config)
        found = machine.disk(scene)
    assert (found.level, found.kind) == (Level.FAILED, Kind.EXHAUSTED)
    assert found.found.startswith("engine, ")


def test_a_reserve_that_is_used_up(site: Patient) -> None:
    site.settle(disk_reserve_bytes=2**60)
    found = site.look("disk")["disk"]
    assert (found.level, found.kind) == (Level.FAILED, Kind.EXHAUSTED)
    assert "predictions" in found.fix


def test_a_damaged_journal(site: Patient) -> None:
    path = site.state / "journal.sqlite"
    Journal(path).close()
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 3] = b"\xff" * 8192
    path.write_bytes(content)
    path.chmod(0o600)
    found = site.look("journal")["journal"]
    assert (found.level, found.kind) == (Level.FAILED, Kind.CONFLICT)
    assert path.read_bytes() == content
    path.write_bytes(b"a letter of a colleague, no database at all")
    assert site.look("journal")["journal"].level is Level.FAILED


def test_a_damaged_record_of_a_dataset(site: Patient) -> None:
    folder = site.state / "datasets" / "7"
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text("{")
    found = site.look("datasets")["datasets"]
    assert (found.level, found.code) == (Level.FAILED, "DATASET_DAMAGED")
    assert found.found.startswith("dataset 7: its record cannot be read")
    assert found.fix.startswith("restore datasets/7/dataset.json")


def test_a_journal_of_a_newer_agent(site: Patient) -> None:
    path = site.state / "journal.sqlite"
    with closing(Journal(path)) as journal:
        journal.set_fact("schema_version", str(SCHEMA_VERSION + 1))
    found = site.look("journal")["journal"]
    assert (found.level, found.kind) == (Level.FAILED, Kind.NOT_READY)


def test_the_journal_is_read_beside_a_writer(site: Patient) -> None:
    with closing(Journal(site.state / "journal.sqlite")) as journal:
        with journal.transaction():
            journal.set_fact("cursor", "7")
            assert site.look("journal")["journal"].level is Level.OK
        assert journal.fact("cursor") == "7"


def test_no_agent_and_one_that_hangs(site: Patient) -> None:
    assert site.look("agent")["agent"].found == "no agent runs"
    lock = os.open(site.state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.lock_holder(site.state / "lock"):
            pytest.skip("this kernel does not list its locks")
        found = site.look("agent")["agent"]
        assert (found.level, found.kind) == (Level.FAILED, Kind.UNAVAILABLE)
        assert f"process {os.getpid()} holds the state folder" in found.found
    finally:
        os.close(lock)
    assert home.lock_holder(site.state / "lock") == 0


def test_the_kernels_word_on_its_clock(site: Patient) -> None:
    found = site.look("time")["time"]
    level = {True: Level.OK, False: Level.WARNING, None: Level.WARNING}
    assert found.level is level[machine.kernel_synchronised()]


def test_the_command_and_its_exit_code(site: Patient) -> None:
    words = ["doctor", "--config", str(site.config), "--check", "disk", "--output", "json"]
    shown = CliRunner().invoke(main, words)
    found = json.loads(shown.stdout)
    assert [each["check"] for each in found["checks"]] == ["settings", "disk"]
    assert (shown.exit_code, found["exit_code"], found["first_failure"]) == (0, 0, None)
    site.settle(disk_reserve_bytes=2**60)
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == EXIT_CODES[Kind.EXHAUSTED] == json.loads(shown.stdout)["exit_code"]
    shown = CliRunner().invoke(main, words[:-2])
    assert shown.stdout.splitlines()[-1].startswith("first to mend: disk; remove old predictions")


def test_a_check_that_is_none(site: Patient) -> None:
    shown = CliRunner().invoke(main, ["doctor", "--config", str(site.config), "--check", "luck"])
    assert shown.exit_code == EXIT_CODES[Kind.INVALID]
    assert all(name in shown.stderr for name in NAMES)


def test_a_terminal_is_not_steered_by_what_others_wrote() -> None:
    from agent.doctor.examination import Finding
    from agent.doctor.screen import lines

    shown = lines(Finding("tls", Verdict(Level.FAILED, "issued by '\x1b[2J'", "")))
    assert "\x1b" not in shown


def test_the_program_as_people_start_it(site: Patient) -> None:
    command = [sys.executable, "-m", "agent", "doctor", "--config", str(site.config)]
    done = subprocess.run([*command, "--check", "state"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("nothing failed")
