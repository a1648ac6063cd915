"""Only the coordinator whose ledger the store holds serves it, with keys that can be read."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from coordinator import authority
from coordinator.backup import back_up, restore
from coordinator.founding import found, open_house, operator_token
from coordinator.keys import check_ca, check_keys
from coordinator.settings import Settings
from coordinator.store import Store
from housecall import statement
from housecall.errors import Kind, Refusal
from tests.coordinator.test_daemon import init, run

COMMANDS = (["serve"], ["check"], ["operator-token", "--operator", "otto"])
PARTS = ("coordinator.json", "ledger.key", "signing.key", "ca/issuing.key", "ca/issuing.pem")


@pytest.fixture
def mine(tmp_path: Path, database_url: str) -> Settings:
    """A coordinator, on either database."""
    settings = Settings(state_dir=tmp_path / "mine", database_url=database_url)
    operator_token(settings, found(settings, "test", "127.0.0.1:1"), "olga")
    return settings


@pytest.fixture
def other(tmp_path: Path) -> Settings:
    """Another one, of the same trust domain."""
    settings = Settings(state_dir=tmp_path / "other")
    found(settings, "test", "127.0.0.1:1")
    return settings


def refused(settings: Settings) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check_keys(settings, open_house(settings))
    return caught.value


def require_refused(state: Path, code: str, *words: str) -> None:
    """By each program of the operator, before it does anything."""
    for command in COMMANDS:
        done = run(*command, "--state-dir", str(state))
        assert done.returncode == 6, done.stderr
        for word in (code, "restore", *words):
            assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert not done.stdout


@pytest.mark.parametrize("name", ["ledger.key", "signing.key"])
def test_another_coordinators_key_is_refused(mine: Settings, other: Settings, name: str) -> None:
    check_keys(mine, open_house(mine))
    shutil.copy(other.state_dir / name, mine.state_dir)
    refusal = refused(mine)
    assert (refusal.kind, refusal.code) == (Kind.NOT_READY, "KEYS_FOREIGN")
    assert str(mine.state_dir / name) in refusal.message
    with pytest.raises(Refusal, match="KEYS_FOREIGN"):
        back_up(mine, mine.state_dir / "backup")
    assert not (mine.state_dir / "backup").exists()


def test_another_trust_domain_is_refused(mine: Settings) -> None:
    facts = {"trust_domain": "elsewhere", "address": "127.0.0.1:1"}
    (mine.state_dir / "coordinator.json").write_text(json.dumps(facts))
    assert "coordinator.json" in refused(mine).message


def test_a_replica_with_another_state_folder_is_refused(mine: Settings, other: Settings) -> None:
    replica = other.model_copy(update={"database_url": mine.store_url})
    assert refused(replica).code == "KEYS_FOREIGN"


def test_the_first_entry_names_both_keys(mine: Settings) -> None:
    house = open_house(mine)
    signing_key = house.signing_key.public_key().public_bytes_raw()
    with contextlib.closing(Store(mine.store_url)) as store, store.read() as reader:
        first = statement.unverified(reader.entry(0).envelope)
    assert first.subjects == {
        "spiffe://test/coordinator": statement.digest(signing_key),
        "test/ledger": statement.digest(house.ledger.verifier_key.encode()),
    }


def test_the_programs_refuse_a_foreign_key(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        assert init(tmp_path / name, 1).returncode == 0
    shutil.copy(tmp_path / "other/ledger.key", tmp_path / "mine")
    require_refused(tmp_path / "mine", "KEYS_FOREIGN", str(tmp_path / "mine/ledger.key"))


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("how", ["garbage", "missing"])
def test_what_cannot_be_read_is_named(mine: Settings, name: str, how: str) -> None:
    path = mine.state_dir / name
    if how == "garbage":
        path.write_bytes(b"\xff{garbage")
    else:
        path.unlink()
    refusal = refused(mine)
    assert (refusal.kind, refusal.code) == (Kind.NOT_READY, "KEYS_UNREADABLE")
    named = name if how == "missing" else name.partition("/")[0]
    assert f"{mine.state_dir / named} cannot be read" in refusal.message


def test_the_programs_refuse_an_unreadable_key(tmp_path: Path) -> None:
    assert init(tmp_path, 1).returncode == 0
    (tmp_path / "signing.key").write_text("garbage")
    require_refused(tmp_path, "KEYS_UNREADABLE", str(tmp_path / "signing.key"))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["issuing.key"], "is not the key of the certificate in"),
        (["issuing.key", "issuing.pem"], "do not hold in a handshake"),
        (["root.pem"], "do not hold in a handshake"),
    ],
)
def test_a_ca_that_lets_nobody_in_is_refused(
    tmp_path: Path, other: Settings, names: list[str], words: str
) -> None:
    assert init(tmp_path / "mine", 1).returncode == 0
    for name in names:
        shutil.copy(other.state_dir / "ca" / name, tmp_path / "mine" / "ca")
    require_refused(tmp_path / "mine", "KEYS_UNREADABLE", words, names[-1])


def test_a_clock_that_is_wrong_does_not_make_a_ca_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that starts with one serves as soon as it is set."""
    made = Settings(state_dir=tmp_path / "made")
    monkeypatch.setattr(authority, "BACKDATE", timedelta(days=-1))
    house = found(made, "test", "127.0.0.1:1")
    check_ca(made, house, now=False)
    with pytest.raises(Refusal, match="not yet valid"):
        check_ca(made, house)
    monkeypatch.undo()
    monkeypatch.setattr(authority, "ISSUING_LIFE", timedelta(seconds=-1))
    shutil.rmtree(made.state_dir)
    house = found(made, "test", "127.0.0.1:1")
    check_ca(made, house, now=False)
    with pytest.raises(Refusal, match="expired"):
        check_ca(made, house)


def test_a_store_that_is_gone_is_restored(tmp_path: Path) -> None:
    """`init` would say that there is a coordinator: the way out is its backup."""
    state, backup = tmp_path / "state", tmp_path / "backup"
    assert init(state, 1).returncode == 0
    assert run("backup", "--state-dir", str(state), str(backup)).returncode == 0
    (state / "coordinator.db").unlink()
    require_refused(state, "STORE_EMPTY", "housecall-coordinator restore")
    again = init(state, 1)
    assert "ALREADY_FOUNDED" in again.stderr
    assert "restore" in again.stderr
    assert run("restore", "--state-dir", str(state), str(backup)).returncode == 0
    assert run("check", "--state-dir", str(state)).returncode == 0


def test_a_database_with_tables_and_no_ledger_is_gone_too(mine: Settings, tmp_path: Path) -> None:
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    Store.create(empty).close()
    assert refused(mine.model_copy(update={"database_url": empty})).code == "STORE_EMPTY"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("signing.key", "its signing.key is not of the coordinator"),
        ("ledger.key", "its ledger.key is not of the coordinator"),
        ("ca", "it has no ca"),
        ("ca/issuing.key", "No such file"),
    ],
)
def test_a_backup_with_other_keys_is_not_restored(
    mine: Settings, other: Settings, tmp_path: Path, name: str, words: str
) -> None:
    backup, target = tmp_path / "backup", Settings(state_dir=tmp_path / "target")
    back_up(mine, backup)
    if name == "ca":
        shutil.rmtree(backup / name)
    elif name == "ca/issuing.key":
        (backup / name).unlink()
    else:
        shutil.copy(other.state_dir / name, backup)
    with pytest.raises(Refusal) as caught:
        restore(target, backup)
    assert caught.value.code == "BACKUP_INVALID"
    assert words in caught.value.message
    assert not list(tmp_path.glob("target/*"))


def test_a_ledger_that_does_not_name_its_key_is_served(mine: Settings, other: Settings) -> None:
    """0.1.0 began such: of its keys, the signing key is compared."""
    path = other.state_dir / "coordinator.db"
    house = open_house(other)
    said = statement.unverified(_first(path)).predicate
    payload = statement.build(said, {house.name: statement.digest(house.name.encode())})
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        envelope = statement.sign(payload, house.signing_key)
        database.execute("UPDATE ledger_entry SET envelope = ?", [envelope])
    check_keys(other, house)
    shutil.copy(mine.state_dir / "signing.key", other.state_dir)
    assert "signing.key" in refused(other).message


def _first(path: Path) -> bytes:
    with contextlib.closing(sqlite3.connect(path)) as database:
        (envelope,) = database.execute("SELECT envelope FROM ledger_entry").fetchone()
    return bytes(envelope)
