"""A store that is not what its ledger makes of it is not served, and can be put right."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import text

from coordinator.founding import found, open_house, operator_token
from coordinator.ledger import root_of
from coordinator.notary import Notary
from coordinator.rebuild import check_store, repair
from coordinator.settings import Settings
from coordinator.store import Store
from coordinator.upkeep import check_at_start
from housecall import merkle
from housecall.errors import Kind, Refusal
from tests.coordinator.scribe import Scribe
from tests.coordinator.test_daemon import init, run
from tests.coordinator.world import free_port

WRONG = {
    "a row changed": ("UPDATE join_token SET used_index = 1", "join_token: 6 rows differ"),
    "a row lost": ("DELETE FROM participant", "participant: 1 rows differ"),
    "a row more": ("INSERT INTO news VALUES ('spiffe://test/site/n', 3)", "news: 1 rows differ"),
    "an id of an entry": ("UPDATE ledger_entry SET thing_id = 'x'", "ledger_entry: 7 rows differ"),
    "a node within": (
        "DELETE FROM ledger_node WHERE level = 0 AND number = 2",
        "ledger_node: 1 rows differ",
    ),
}
DAMAGE = {
    "an entry lost": ("DELETE FROM ledger_entry WHERE ledger_index = 3", "entry 3: it is missing"),
    "the last entry lost": (
        "DELETE FROM ledger_entry WHERE ledger_index = 6",
        "entry 6: expected 7 entries",
    ),
    "an envelope replaced": (
        "UPDATE ledger_entry SET envelope = (SELECT envelope FROM ledger_entry "
        "WHERE ledger_index = 5) WHERE ledger_index = 4",
        "entry 5: join token",
    ),
    "another signer": ("UPDATE ledger_entry SET signer = 'x' WHERE ledger_index = 2", "entry 2"),
    "the tree's peak": (
        "UPDATE ledger_node SET number = 9 WHERE level = 2",
        "entry 7: expected root",
    ),
}


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """A store of seven entries."""
    made = Settings(state_dir=tmp_path / "c", database_url=database_url)
    house = found(made, "test", "127.0.0.1:1")
    scribe = Scribe(house)
    with contextlib.closing(Store(made.store_url)) as store, Notary(store, house.ledger) as notary:
        for _ in range(6):
            notary.append(scribe.envelope(), scribe.caller)
    return made


def change(settings: Settings, statement: str) -> None:
    with contextlib.closing(Store(settings.store_url)) as store, store.engine.begin() as connection:
        connection.execute(text(statement))


def test_a_slow_machine_is_no_reason_to_be_thrown_out(tmp_path: Path, postgresql_url: str) -> None:
    """The transaction idles while pages are replayed; the server's limit is for hanging ones."""
    options = "-c idle_in_transaction_session_timeout=1000"
    url = f"{postgresql_url}&options={quote(options)}"
    made = Settings(state_dir=tmp_path / "c", database_url=url)
    operator_token(made, found(made, "test", "127.0.0.1:1"), "olga")

    def slow(done: int, of: int) -> None:
        time.sleep(1.2)  # longer than the limit

    with contextlib.closing(Store(made.store_url)) as store:
        assert check_store(store, slow).size == 2
        assert repair(store, slow).size == 2


@pytest.mark.parametrize("what", WRONG)
def test_tables_that_differ_are_not_served_and_made_again(settings: Settings, what: str) -> None:
    statement, words = WRONG[what]
    check_at_start(settings)
    change(settings, statement)
    with pytest.raises(Refusal) as caught:
        check_at_start(settings)
    assert (caught.value.kind, caught.value.code) == (Kind.CONFLICT, "STORE_DIFFERS")
    assert words in caught.value.message
    assert "housecall-coordinator rebuild" in caught.value.message
    with contextlib.closing(Store(settings.store_url)) as store:
        assert repair(store).differences == [words]
        assert repair(store).differences == []
    check_at_start(settings)
    operator_token(settings, open_house(settings), "oscar")


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_ledger_is_not_believed(settings: Settings, what: str) -> None:
    """What was signed and handed out cannot be made again: only a backup has it."""
    statement, words = DAMAGE[what]
    change(settings, statement)
    with contextlib.closing(Store(settings.store_url)) as store:
        with store.read() as reader:
            before = list(reader.envelopes())
        with pytest.raises(Refusal) as caught:
            repair(store)
        with store.read() as reader:
            assert list(reader.envelopes()) == before
    assert caught.value.code == "LEDGER_DAMAGED"
    assert words in caught.value.message


def test_a_root_from_entries_is_the_root_of_the_tree() -> None:
    nodes: dict[tuple[int, int], bytes] = {}

    def node(level: int, number: int) -> bytes:
        return nodes[level, number]

    envelopes = [bytes([number]) for number in range(20)]
    for index, envelope in enumerate(envelopes):
        assert root_of(envelopes[:index]) == merkle.root(index, node)
        for level, number, value in merkle.new_nodes(index, merkle.leaf_hash(envelope), node):
            nodes[level, number] = value


def test_systemd_hears_that_it_takes_longer(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.upkeep.SAY_EVERY_SECONDS", 0.0)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(30)
        check_at_start(settings)
        assert notices.recv(200) == b"EXTEND_TIMEOUT_USEC=60000000\nSTATUS=checking entry 7 of 7"


def test_the_programs_say_so(tmp_path: Path) -> None:
    """`serve` refuses before it listens; `check_at_start` off is the operator's own risk."""
    state, port = tmp_path / "state", free_port()
    assert init(state, port).returncode == 0
    good = run("check", "--state-dir", str(state))
    assert good.returncode == 0
    assert "2 entries" in good.stdout
    with contextlib.closing(sqlite3.connect(state / "coordinator.db")) as database, database:
        database.execute("UPDATE participant SET role = 1")
    for command in ("serve", "check"):
        refused = run(command, "--state-dir", str(state))
        assert refused.returncode == 5
        assert "STORE_DIFFERS" in refused.stderr
    again = run("rebuild", "--state-dir", str(state))
    assert again.returncode == 0, again.stderr
    assert "made again: participant: 1 rows differ" in again.stdout
    assert run("check", "--state-dir", str(state)).returncode == 0


@pytest.mark.parametrize("how", ["cut off", "scribbled over", "something else"])
def test_a_file_that_is_no_whole_database(tmp_path: Path, how: str) -> None:
    settings = Settings(state_dir=tmp_path / "c")
    house = found(settings, "test", "127.0.0.1:1")
    scribe = Scribe(house)
    with (
        contextlib.closing(Store(settings.store_url)) as store,
        Notary(store, house.ledger) as notary,
    ):
        for future in [notary.submit(scribe.envelope(), scribe.caller) for _ in range(100)]:
            future.result(30)
    path = tmp_path / "c" / "coordinator.db"
    whole = path.read_bytes()
    if how == "cut off":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "scribbled over":
        path.write_bytes(whole[:40000] + bytes(20000) + whole[60000:])
    else:
        path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(Refusal) as caught:
        check_at_start(settings)
    assert (caught.value.kind, caught.value.code) == (Kind.UNAVAILABLE, "STORE_UNREADABLE")
    assert "restore" in caught.value.message
