"""The store on both databases: the same order, one moment a reader, clear noes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.founding import House, found
from coordinator.models import LedgerEntry, Participant
from coordinator.notary import Notary
from coordinator.settings import Settings
from coordinator.store import Store
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb
from tests.coordinator.scribe import Scribe
from tests.coordinator.world import free_port


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(state_dir=tmp_path / "c", database_url=database_url)


@pytest.fixture
def house(settings: Settings) -> House:
    return found(settings, "test", "127.0.0.1:1")


@pytest.fixture
def store(settings: Settings, house: House) -> Iterator[Store]:
    with contextlib.closing(Store(settings.store_url)) as opened:
        yield opened


def participant(name: str) -> Participant:
    return Participant(
        name=name, role=pb.ROLE_SITE, signing_key=b"\0\xff", tls_key_digest="", enrolled_index=0
    )


def test_texts_come_in_the_order_of_their_bytes(store: Store) -> None:
    """Most locales would have a before B, and the dash for nothing."""
    names = ["B", "a", "a-b", "aa", "b", "É", "é", "\U0001f600"]
    writer = store.writer()
    writer.begin()
    writer.add(*(participant(name) for name in reversed(names)))
    writer.commit()
    writer.close()
    with store.read() as reader:
        found_names = []
        after: str | None = None
        while page := reader.page(Participant, Participant.name, after, 2, role=pb.ROLE_SITE):
            after = page[-1].name
            found_names += [row.name for row in page]
    assert found_names == names


def test_a_reader_sees_one_moment(store: Store, house: House) -> None:
    scribe = Scribe(house)
    with Notary(store, house.ledger) as notary, store.read() as reader:
        before = reader.tree_size()
        notary.append(scribe.envelope(), scribe.caller)
        assert reader.tree_size() == before
        with store.read() as later:
            assert later.tree_size() == before + 1


def test_a_number_or_text_that_no_store_can_hold(store: Store, house: House) -> None:
    with pytest.raises(Refusal) as caught, store.read() as reader:
        reader.find(LedgerEntry, 2**64 - 1)
    assert (caught.value.kind, caught.value.code) == (Kind.INVALID, "VALUE_UNSTORABLE")
    scribe = Scribe(house)
    said = pb.ParticipantRevoked(name="spiffe://test/site/n", reason="a\0b")
    envelope = statement.sign(statement.build(said, {}), house.signing_key)
    with Notary(store, house.ledger) as notary:
        with pytest.raises(Refusal) as caught:
            notary.append(envelope, scribe.caller)
        assert caught.value.code == "VALUE_UNSTORABLE"
        assert notary.append(scribe.envelope(), scribe.caller).index == 1


def test_a_text_that_only_looks_like_a_nul_is_kept(store: Store, house: House) -> None:
    said = pb.ParticipantRevoked(name="spiffe://test/site/n", reason=r"a\u0000b")
    envelope = statement.sign(statement.build(said, {}), house.signing_key)
    with Notary(store, house.ledger) as notary, pytest.raises(Refusal) as caught:
        notary.append(envelope, Scribe(house).caller)
    assert caught.value.code == "PARTICIPANT_NOT_FOUND"


def test_a_database_without_a_ledger_is_not_served(settings: Settings) -> None:
    with pytest.raises(Refusal) as caught:
        Store(settings.store_url)
    assert caught.value.code == "STORE_EMPTY"
    assert "housecall-coordinator init" in caught.value.message
    assert not list(settings.state_dir.glob("*")), "looking makes nothing"


def test_a_second_coordinator_is_not_founded_in_the_same_store(
    settings: Settings, house: House, tmp_path: Path
) -> None:
    other = Settings(state_dir=tmp_path / "other", database_url=settings.store_url)
    with pytest.raises(Refusal) as caught:
        found(other, "test", "127.0.0.1:2")
    assert caught.value.code == "LEDGER_NOT_EMPTY"


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg", "postgres"])
def test_a_database_that_nobody_serves_is_named_without_its_password(driver: str) -> None:
    port = free_port()
    with pytest.raises(Refusal) as caught:
        Store(f"{driver}://housecall:sesame@127.0.0.1:{port}/ledger")
    assert (caught.value.kind, caught.value.code) == (Kind.UNAVAILABLE, "STORE_UNREACHABLE")
    assert f"127.0.0.1:{port}/ledger" in caught.value.message
    assert "host, port, database, user and password in database_url" in caught.value.message
    assert "sesame" not in caught.value.message


@pytest.mark.parametrize("url", ["mysql://u:sesame@h/d", "no url", "postgresql+asyncpg://h/d"])
def test_a_url_of_something_else(url: str) -> None:
    with pytest.raises(Refusal) as caught:
        Store(url)
    assert caught.value.code == "SETTINGS_INVALID"
    assert "expected sqlite:///" in caught.value.message
    assert "sesame" not in caught.value.message


def test_a_missing_postgresql_database_is_named(postgresql_url: str) -> None:
    with pytest.raises(Refusal) as caught:
        Store(postgresql_url.replace("@/", "@/no_"))
    assert caught.value.code == "STORE_UNREACHABLE"
    assert "does not exist" in caught.value.message
