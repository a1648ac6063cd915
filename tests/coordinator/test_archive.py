"""The archive goes as far as what was answered, and brings an older backup forward to there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator import archive as room
from coordinator.archive import Archive, blocks
from coordinator.backup import back_up, restore
from coordinator.founding import House, found
from coordinator.notary import Accepted, Notary
from coordinator.rebuild import check_store
from coordinator.settings import Settings
from coordinator.store import Store
from housecall import verify
from housecall.client import connect
from housecall.errors import Kind, Refusal
from housecall.statement import digest
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.process import coordinator_process
from tests.coordinator.scribe import Scribe
from tests.coordinator.test_backup import refused
from tests.coordinator.test_daemon import run
from tests.coordinator.world import Party, register_model, running, world


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        state_dir=tmp_path / "c", database_url=database_url, archive_dir=tmp_path / "archive"
    )


@pytest.fixture
def house(settings: Settings) -> House:
    return found(settings, "test", "127.0.0.1:1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "archive"
    made.mkdir(mode=0o700)
    return made


def append(settings: Settings, house: House, folder: Path, count: int) -> list[Accepted]:
    """That many statements, answered one by one by a notary with this archive."""
    scribe = Scribe(house)
    folder.mkdir(exist_ok=True)
    with (
        contextlib.closing(Store(settings.store_url)) as store,
        Archive(folder, house.ledger) as archive,
        Notary(store, house.ledger, archive=archive) as notary,
    ):
        return [notary.append(scribe.envelope(), scribe.caller) for _ in range(count)]


def sizes(folder: Path, house: House) -> list[int]:
    return [block.checkpoint.size for block in blocks(folder, house.ledger.verifier_key)]


def test_what_was_answered_is_in_it(settings: Settings, house: House, folder: Path) -> None:
    answered = append(settings, house, folder, 3)
    found_again = [
        entry.envelope
        for block in blocks(folder, house.ledger.verifier_key)
        for entry in block.entries
    ]
    assert found_again[1:] == [each.envelope for each in answered]
    assert sizes(folder, house) == [1, 2, 3, 4]
    for path in folder.glob("*.jsonl"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_files_are_begun_anew_and_go_on(
    settings: Settings, house: House, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "ENTRIES_A_FILE", 3)
    monkeypatch.setattr(room, "PAGE", 2)
    for _ in range(3):
        append(settings, house, folder, 3)
    names = sorted(path.name for path in folder.glob("*.jsonl"))
    assert names == [f"entries-{first:012}.jsonl" for first in (0, 3, 6, 9)]
    assert sizes(folder, house)[-1] == 10


@pytest.mark.parametrize("cut", [1, 200, 900])
def test_a_block_that_was_cut_off_is_written_again(
    settings: Settings, house: House, folder: Path, cut: int
) -> None:
    append(settings, house, folder, 3)
    (path,) = folder.glob("*.jsonl")
    whole = path.read_bytes()
    os.truncate(path, len(whole) - cut)
    assert sizes(folder, house) == [1, 2, 3]
    append(settings, house, folder, 0)
    with (
        contextlib.closing(Store(settings.store_url)) as store,
        store.read() as reader,
        Archive(folder, house.ledger) as archive,
    ):
        archive.check(reader)
        archive.follow(reader, reader.tree_size())
    assert path.read_bytes() == whole


def test_a_full_disk_is_no_answer_and_no_loss(
    settings: Settings, house: House, tmp_path: Path
) -> None:
    """What is in the ledger and not in the archive is told to nobody, until it is in both."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        scribe = Scribe(house)
        with (
            contextlib.closing(Store(settings.store_url)) as store,
            Archive(disk, house.ledger) as archive,
            Notary(store, house.ledger, archive=archive) as notary,
        ):
            envelope = fill(notary, scribe)
            with pytest.raises(Refusal, match="ARCHIVE_FAILED"):
                notary.append(envelope, scribe.caller)
            with store.read() as reader:
                known = reader.entry_by_digest(digest(envelope))
                size = reader.tree_size()
            assert known is not None, "it is in the ledger, and unanswered"
            with pytest.raises(Refusal, match="ARCHIVE_FAILED"):
                notary.append(scribe.envelope(), scribe.caller)
            with store.read() as reader:
                assert reader.tree_size() == size, "nothing more is appended until there is room"
            subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
            accepted = notary.append(envelope, scribe.caller)
            assert accepted.index == known.ledger_index
            assert sizes(disk, house)[-1] == accepted.index + 1
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(notary: Notary, scribe: Scribe) -> bytes:
    """Append until the archive is full; the statement that it had no room for."""
    last = b""

    def go_on() -> None:
        nonlocal last
        for _ in range(200):
            last = scribe.envelope()
            notary.append(last, scribe.caller)

    assert refused(go_on) == "ARCHIVE_FAILED"
    return last


def test_a_backup_is_brought_forward(settings: Settings, house: House, folder: Path) -> None:
    """To the last entry that was answered: every receipt still holds."""
    append(settings, house, folder, 2)
    out = folder.parent / "backup"
    taken = back_up(settings, out)
    answered = append(settings, house, folder, 3)
    target = Settings(state_dir=folder.parent / "restored")
    brought = restore(target, out, archives=[folder])
    assert (taken.size, brought.size) == (3, 6)
    assert verify.check_checkpoint(brought.checkpoint, house.ledger.verifier_key).size == 6
    with contextlib.closing(Store(target.store_url)) as store, store.read() as reader:
        checked = check_store(store, signatures=True)
        assert (checked.size, checked.root, checked.differences) == (6, brought.root, [])
        for each in answered:
            assert reader.entry(each.index).envelope == each.envelope
            proof = verify.check_receipt(each.envelope, each.receipt, house.ledger.verifier_key)
            assert proof.size <= checked.size


def test_everyone_goes_on_after_the_disk_was_lost(tmp_path: Path) -> None:
    """Real people over TLS: what was said after the backup counts, and is not said twice."""
    (tmp_path / "archive").mkdir()
    with world(tmp_path / "first", archive_dir=tmp_path / "archive") as made:
        mona = made.join("mona", pb.ROLE_PERSON)
        back_up(made.settings, tmp_path / "backup")
        late = register_model(mona, "said after the backup")
        settings, house = made.settings, made.house
    shutil.rmtree(settings.state_dir)
    restore(settings, tmp_path / "backup", archives=[tmp_path / "archive"])
    with running(settings, house), connect(mona.identity) as channel:
        again = Party(mona.identity, channel)
        assert register_model(again, "said later").id == late.id + 1


def test_an_older_store_is_not_served(settings: Settings, house: House, folder: Path) -> None:
    """Sites would take it for a ledger that somebody rewrote."""
    out = folder.parent / "backup"
    append(settings, house, folder, 1)
    back_up(settings, out)
    append(settings, house, folder, 1)
    older = settings.model_copy(update={"state_dir": folder.parent / "older", "database_url": ""})
    restore(older, out)
    with (
        contextlib.closing(Store(older.store_url)) as store,
        store.read() as reader,
        Archive(folder, house.ledger) as archive,
    ):
        assert refused(lambda: archive.check(reader)) == "STORE_BEHIND_ARCHIVE"
        assert refused(lambda: Archive(folder, house.ledger)) == "COORDINATOR_RUNNING"


def another_signer(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([*lines[:-2], lines[-2].replace("/coordinator", "/x"), lines[-1], ""])
    )


def another_envelope(path: Path) -> None:
    lines = path.read_text().splitlines()
    row = json.loads(lines[-2])
    row["envelope"] = row["envelope"].replace('"sig"', '"gis"')
    path.write_text("\n".join([*lines[:-2], json.dumps(row), lines[-1], ""]))


def scribbled(path: Path) -> None:
    path.write_text(path.read_text().replace('{"ledger_index": 3', "{", 1))


def begun_late(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[-2:], ""]))


def cut_away(path: Path) -> None:
    """An entry is missing in the middle."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-4], *lines[-3:], ""]))


@pytest.mark.parametrize(
    "harm", [another_signer, another_envelope, scribbled, begun_late, cut_away, Path.unlink]
)
def test_an_archive_that_was_changed_brings_nothing(
    settings: Settings, house: House, folder: Path, harm: Callable[[Path], None]
) -> None:
    back_up(settings, folder.parent / "backup")
    append(settings, house, folder, 3)
    (path,) = folder.glob("*.jsonl")
    harm(path)
    target, out = Settings(state_dir=folder.parent / "restored"), folder.parent / "backup"
    assert refused(lambda: restore(target, out, archives=[folder])) == "ARCHIVE_INVALID"
    assert not target.state_dir.exists()


def test_anothers_archive_is_refused(settings: Settings, house: House, folder: Path) -> None:
    """Another coordinator's, or this one's with another history."""
    back_up(settings, folder.parent / "backup")
    append(settings, house, folder, 1)
    other = found(Settings(state_dir=folder.parent / "other"), "test", "127.0.0.1:2")
    assert refused(lambda: Archive(folder, other.ledger)) == "ARCHIVE_INVALID"
    parted = Settings(state_dir=folder.parent / "parted")
    restore(parted, folder.parent / "backup")
    append(parted, house, folder.parent / "its own", 1)
    with (
        contextlib.closing(Store(parted.store_url)) as store,
        store.read() as reader,
        Archive(folder, house.ledger) as archive,
    ):
        assert refused(lambda: archive.check(reader)) == "ARCHIVE_INVALID"


def test_a_store_that_lost_its_last_commits_is_not_followed(
    settings: Settings, house: House, folder: Path
) -> None:
    """As a standby may, that takes over while the coordinator serves."""
    scribe = Scribe(house)
    with (
        contextlib.closing(Store(settings.store_url)) as store,
        Archive(folder, house.ledger) as archive,
    ):
        with Notary(store, house.ledger, archive=archive) as notary:
            notary.append(scribe.envelope(), scribe.caller)
        lose_the_last(store)
        assert refused_to(store, house, archive) == "STORE_BEHIND_ARCHIVE"
        with Notary(store, house.ledger) as notary:
            notary.append(scribe.envelope(), scribe.caller)
        assert refused_to(store, house, archive) == "ARCHIVE_INVALID"
    assert sizes(folder, house) == [1, 2]


def refused_to(store: Store, house: House, archive: Archive) -> str:
    scribe = Scribe(house)
    with Notary(store, house.ledger, archive=archive) as notary:
        return refused(lambda: notary.append(scribe.envelope(), scribe.caller))


def lose_the_last(store: Store) -> None:
    store.engine.dispose()
    with store.engine.begin() as connection:
        for sql in (
            "DELETE FROM ledger_entry WHERE ledger_index = 1",
            "DELETE FROM ledger_node WHERE (level = 0 AND number = 1) OR level > 0",
            "DELETE FROM join_token",
        ):
            connection.exec_driver_sql(sql)


def test_what_is_not_its_own_is_left_alone(house: House, folder: Path) -> None:
    foreign = folder / "entries-2024.jsonl"
    foreign.write_text("somebody else's\n")
    Archive(folder, house.ledger).__exit__()
    late = folder / "entries-000000000007.jsonl"
    late.write_text("cut off")
    assert refused(lambda: Archive(folder, house.ledger)) == "ARCHIVE_INVALID"
    assert (foreign.read_text(), late.read_text()) == ("somebody else's\n", "cut off")


def test_several_archives_are_brought_together(
    settings: Settings, house: House, folder: Path
) -> None:
    """One of each coordinator: the longest counts, whatever comes first."""
    out, others = folder.parent / "backup", folder.parent / "others"
    back_up(settings, out)
    append(settings, house, folder, 3)
    append(settings, house, others, 1)
    for number, archives in enumerate(([folder, others], [others, folder])):
        target = Settings(state_dir=folder.parent / f"restored {number}")
        assert restore(target, out, archives=archives).size == 5


@pytest.mark.parametrize("where", ["here", "/var/lib/housecall-coordinator"])
def test_an_archive_is_elsewhere(where: str) -> None:
    with pytest.raises(ValueError, match="an absolute path other than state_dir"):
        Settings(archive_dir=Path(where))
    assert Settings.model_validate({"archive_dir": ""}).archive_dir is None


def test_the_programs(tmp_path: Path) -> None:
    """The disk of a coordinator is lost; its backup and its archive were elsewhere."""
    out, folder, state = tmp_path / "backup", tmp_path / "archive", tmp_path / "coordinator"
    folder.mkdir()
    with coordinator_process(tmp_path, archive_dir=str(folder)) as made:
        assert run("backup", "--state-dir", str(state), str(out)).returncode == 0
        register_model(made.join("mona", pb.ROLE_PERSON), "said after the backup")
        url = made.settings.store_url
        with contextlib.closing(Store(url)) as store, store.read() as reader:
            size = reader.tree_size()
    shutil.rmtree(state)
    assert run("restore", "--state-dir", str(state), str(out)).returncode == 0
    archived = {"HOUSECALL_COORDINATOR_ARCHIVE_DIR": str(folder)}
    behind = run("serve", "--state-dir", str(state), "--listen", "127.0.0.1:0", **archived)
    assert behind.returncode == 6
    assert "STORE_BEHIND_ARCHIVE" in behind.stderr
    shutil.rmtree(state)
    words = ["restore", "--state-dir", str(state), "--archive", str(folder), str(out)]
    back = run(*words)
    assert back.returncode == 0, back.stderr
    assert "warning" not in back.stderr
    assert back.stdout.startswith(f"{size} entries, root ")
    assert run("check", "--state-dir", str(state)).returncode == 0
    (path,) = folder.glob("*.jsonl")
    os.truncate(path, path.stat().st_size - 1)
    shutil.rmtree(state)
    shorter = run(*words)
    assert shorter.stdout.startswith(f"{size - 1} entries, root ")
    assert f"warning: {path} is cut off behind its last checkpoint" in shorter.stderr


def test_a_folder_that_is_not_there_is_not_made(
    settings: Settings, house: House, folder: Path
) -> None:
    """Its disk may not be mounted: the archive would lie on the one below."""
    folder.rmdir()
    with pytest.raises(Refusal, match=f"expected a folder at {folder}") as caught:
        Archive(folder, house.ledger)
    assert (caught.value.kind, caught.value.code) == (Kind.NOT_READY, "ARCHIVE_MISSING")
    assert not folder.exists()
