"""A backup is one moment, complete or absent, and a coordinator again on either database."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.backup import back_up, restore
from coordinator.founding import found, open_house, operator_token
from coordinator.keys import check_keys
from coordinator.rebuild import check_store
from coordinator.settings import Settings
from coordinator.store import Store
from housecall import verify
from housecall.client import connect
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb
from tests.coordinator import released
from tests.coordinator.test_daemon import init, run
from tests.coordinator.world import Party, World, register_model, running, world


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Where there is nothing yet."""
    url = ""
    with contextlib.ExitStack() as stack:
        if request.param == "postgresql":
            server = request.getfixturevalue("postgresql")
            url = server.url(stack.enter_context(server.database()))
        yield Settings(state_dir=tmp_path / "restored", database_url=url)


@contextlib.contextmanager
def busy(made: World) -> Iterator[None]:
    """Somebody goes on registering models within."""
    mona = made.join("mona", pb.ROLE_PERSON)
    begun, stop = threading.Event(), threading.Event()

    def register() -> None:
        number = 0
        while not stop.is_set():
            register_model(mona, f"model {number}")
            number += 1
            begun.set()

    thread = threading.Thread(target=register)
    thread.start()
    try:
        assert begun.wait(30)
        yield
    finally:
        stop.set()
        thread.join(30)


def test_one_moment_while_others_go_on(coordinator: World, target: Settings) -> None:
    out = target.state_dir.parent / "backup"
    with busy(coordinator):
        taken = back_up(coordinator.settings, out)
    signed = verify.check_checkpoint(taken.checkpoint, coordinator.house.ledger.verifier_key)
    assert (signed.size, signed.root) == (taken.size, taken.root)
    for path in (out, *out.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert not list(out.glob("*-wal")), "one file, which a read-only medium can hold"
    restored = restore(target, out)
    assert (restored.size, restored.root) == (taken.size, taken.root)
    with contextlib.closing(Store(target.store_url)) as store:
        checked = check_store(store, signatures=True)
    assert (checked.size, checked.root, checked.differences) == (taken.size, taken.root, [])


def test_a_restored_coordinator_goes_on(tmp_path: Path, target: Settings) -> None:
    """The same keys, the same CA: everyone's identity is good, and the ledger continues."""
    with world(tmp_path / "first") as made:
        mona = made.join("mona", pb.ROLE_PERSON)
        before = register_model(mona, "before")
        settings, house = made.settings, made.house
        out = tmp_path / "backup"
        back_up(settings, out)
    restore(target, out)
    moved = target.model_copy(update={"listen": settings.listen})
    with running(moved, house), connect(mona.identity) as channel:
        again = Party(mona.identity, channel)
        assert register_model(again, "after").id == before.id + 1


def test_what_is_there_already_is_left_alone(tmp_path: Path, target: Settings) -> None:
    source = Settings(state_dir=tmp_path / "c")
    found(source, "test", "127.0.0.1:1")
    out = tmp_path / "backup"
    back_up(source, out)
    assert refused(lambda: back_up(source, out)) == "BACKUP_EXISTS"
    house = found(target, "test", "127.0.0.1:2")
    operator_token(target, house, "olga")
    assert refused(lambda: restore(target, out)) == "ALREADY_FOUNDED"
    elsewhere = target.model_copy(
        update={"state_dir": tmp_path / "elsewhere", "database_url": target.store_url}
    )
    assert refused(lambda: restore(elsewhere, out)) == "LEDGER_NOT_EMPTY"
    assert not list(elsewhere.state_dir.iterdir())


def test_a_state_folder_of_the_same_coordinator_is_left_as_it_is(tmp_path: Path) -> None:
    """Its issuing CA got a successor after the backup; then the database was lost."""
    settings, out = Settings(state_dir=tmp_path / "c"), tmp_path / "backup"
    found(settings, "test", "127.0.0.1:1")
    back_up(settings, out)
    successor = settings.state_dir / "ca" / "issuing.pem"
    successor.write_bytes(b"the successor")
    assert refused(lambda: restore(settings, out)) == "LEDGER_NOT_EMPTY"
    assert successor.read_bytes() == b"the successor"
    for file in settings.state_dir.glob("coordinator.db*"):
        file.unlink()
    restore(settings, out)
    assert successor.read_bytes() == b"the successor"


def refused(call: object) -> str:
    assert callable(call)
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("UPDATE ledger_entry SET envelope = x'00' WHERE ledger_index = 1", "LEDGER_DAMAGED"),
        ("DELETE FROM ledger_entry WHERE ledger_index = 1", "BACKUP_INVALID"),
        ("scribbled", "BACKUP_INVALID"),
        ("emptied", "BACKUP_INVALID"),
        ("nothing", "BACKUP_INVALID"),
        ("a line more", "BACKUP_INVALID"),
        ("no text", "BACKUP_INVALID"),
        ("no checkpoint", "BACKUP_INVALID"),
        ("another's checkpoint", "BACKUP_INVALID"),
    ],
)
def test_a_backup_that_was_changed_is_not_restored(tmp_path: Path, how: str, code: str) -> None:
    source, out = Settings(state_dir=tmp_path / "c"), tmp_path / "backup"
    house = found(source, "test", "127.0.0.1:1")
    operator_token(source, house, "olga")
    back_up(source, out)
    path = out / "coordinator.db"
    if how == "scribbled":
        path.write_bytes(path.read_bytes()[:30000])
    elif how == "emptied":
        path.unlink()
        Store.create(f"sqlite:///{path}").close()
    elif how == "nothing":
        path.write_bytes(b"")
    elif how == "a line more":
        with (out / "checkpoint").open("a") as file:
            file.write("more\n")
    elif how == "no text":
        (out / "checkpoint").write_bytes(b"\xff\xfe")
    elif how == "no checkpoint":
        (out / "checkpoint").unlink()
    elif how == "another's checkpoint":
        operator_token(source, house, "otto")
        back_up(source, tmp_path / "later")
        shutil.copy(tmp_path / "later" / "checkpoint", out)
    else:
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute(how)
    target = Settings(state_dir=tmp_path / "restored")
    with pytest.raises(Refusal) as caught:
        restore(target, out)
    assert caught.value.code == code
    assert "init" not in caught.value.message
    assert not target.state_dir.exists() or not list(target.state_dir.iterdir())


def test_no_room_for_the_copy_is_no_damage(tmp_path: Path, small_disk: Path) -> None:
    """The backup is copied into the folder for temporary files first."""
    source, out = Settings(state_dir=tmp_path / "c"), tmp_path / "backup"
    found(source, "test", "127.0.0.1:1")
    back_up(source, out)
    (small_disk / "filler").write_bytes(bytes((1 << 20) - 40_000))
    words = ["restore", "--state-dir", str(tmp_path / "new"), str(out)]
    done = run(*words, TMPDIR=str(small_disk))
    assert done.returncode == 7, done.stderr
    assert f"no room at {small_disk}" in done.stderr


def test_keys_of_another_are_not_written_over(tmp_path: Path) -> None:
    """Even where the file that says whose they are is gone."""
    mine, other = Settings(state_dir=tmp_path / "mine"), Settings(state_dir=tmp_path / "other")
    for each in (mine, other):
        found(each, "test", "127.0.0.1:1")
    back_up(mine, tmp_path / "backup")
    for name in ("coordinator.json", "coordinator.db"):
        (other.state_dir / name).unlink()
    before = (other.state_dir / "ledger.key").read_bytes()
    assert refused(lambda: restore(other, tmp_path / "backup")) == "ALREADY_FOUNDED"
    assert (other.state_dir / "ledger.key").read_bytes() == before


def test_a_store_that_moved_is_not_served_again(tmp_path: Path, postgresql_url: str) -> None:
    """A coordinator whose `database_url` is lost one day; and the way back."""
    settings, out = Settings(state_dir=tmp_path / "c"), tmp_path / "backup"
    operator_token(settings, found(settings, "test", "127.0.0.1:1"), "olga")
    back_up(settings, out)
    there = settings.model_copy(update={"database_url": postgresql_url})
    restore(there, out)
    check_keys(there, open_house(there))
    with pytest.raises(Refusal, match="check database_url") as caught:
        check_keys(settings, open_house(settings))
    assert caught.value.code == "STORE_EMPTY"
    assert (settings.state_dir / "coordinator.db.moved").exists()
    back_up(there, tmp_path / "later")
    restore(settings, tmp_path / "later")
    check_keys(settings, open_house(settings))


def test_a_damaged_store_gives_no_backup(tmp_path: Path) -> None:
    source, out = Settings(state_dir=tmp_path / "c"), tmp_path / "backup"
    found(source, "test", "127.0.0.1:1")
    with contextlib.closing(sqlite3.connect(tmp_path / "c/coordinator.db")) as database, database:
        database.execute("UPDATE ledger_node SET hash = x'00'")
    assert refused(lambda: back_up(source, out)) == "LEDGER_DAMAGED"
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_backup_of_an_older_version_is_restored(tmp_path: Path, target: Settings) -> None:
    """The state folder with its database is all that it took."""
    source, out = Settings(state_dir=tmp_path / "c"), tmp_path / "backup"
    operator_token(source, found(source, "test", "127.0.0.1:1"), "olga")
    taken = back_up(source, out)
    path, newer = out / "coordinator.db", tmp_path / "newer.db"
    path.rename(newer)
    released.sqlite_file(path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("ATTACH ? AS newer", [str(newer)])
        for table in ("ledger_entry", "ledger_node", "participant", "join_token"):
            database.execute(f"DELETE FROM {table}")
            database.execute(f"INSERT INTO {table} SELECT * FROM newer.{table}")
        database.commit()
    assert (taken.size, restore(target, out)) == (2, taken)


def test_the_programs(tmp_path: Path) -> None:
    state, out, new = tmp_path / "state", tmp_path / "backup", tmp_path / "new"
    assert init(state, 1).returncode == 0
    taken = run("backup", "--state-dir", str(state), str(out))
    assert taken.returncode == 0, taken.stderr
    assert taken.stdout == (out / "checkpoint").read_text()
    assert "2 entries, root" in taken.stderr
    back = run("restore", "--state-dir", str(new), str(out))
    assert back.returncode == 0, back.stderr
    assert "2 entries" in back.stdout
    assert run("check", "--state-dir", str(new)).returncode == 0
    again = run("restore", "--state-dir", str(new), str(out))
    assert again.returncode == 5
    assert "LEDGER_NOT_EMPTY" in again.stderr
    nowhere = run("backup", "--state-dir", str(state), str(out / "coordinator.json" / "b"))
    assert nowhere.returncode == 2
    assert "FILE_FAILED" in nowhere.stderr
