"""The herald by itself: what it tells follows the ledger, woken or not."""

from __future__ import annotations

import queue
import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from coordinator import herald as heralds
from coordinator import opening
from coordinator.caller import Caller, CallerRole
from coordinator.fleet import Fleet, Tidings
from coordinator.herald import Herald
from coordinator.notary import Notary
from coordinator.standing import Doing, Word
from coordinator.store import Store
from coordinator.store.growth import sites_of
from housecall import statement
from housecall.errors import Kind, Refusal
from housecall.v1 import statements_pb2 as pb
from housecall.watchdog import Stuck
from tests.coordinator.scribe import Scribe
from tests.coordinator.test_fleet import order_line, prepared
from tests.coordinator.world import Party, World, sha


class Told(Fleet):
    """Every site is connected here."""

    def is_here(self, site: str) -> bool:
        return True


def test_news_orders_and_ends_come_in_the_ledgers_order(coordinator: World) -> None:
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, _, other = prepared(coordinator, north)
    store, told = Store(coordinator.settings.store_url), queue.Queue[Tidings]()
    with Herald(store, Told(), told.put) as herald:
        carla.state(order_line("north/1", other))
        carla.state(pb.ExecutionCancelled(execution_ids=[1], reason="mistake"))
        coordinator.operator.state(pb.ParticipantRevoked(name=north.name, reason="left"))
        herald.wake()
        found = Tidings()
        while not found.revoked:
            some = told.get(timeout=10)
            found.mail += some.mail
            found.revoked += some.revoked
            found.ended += some.ended
    store.close()
    assert {site for site, _ in found.mail} == {north.name}
    kinds = [m if isinstance(m, int) else m.WhichOneof("message") for _, m in found.mail]
    assert kinds == ["news", 1, "news", "cancel"]
    assert (found.revoked, found.ended) == ([north.name], [1])


def test_a_wake_that_got_lost_loses_nothing(
    coordinator: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heralds, "LOOK_SECONDS", 0.05)
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    store, told = Store(coordinator.settings.store_url), queue.Queue[Tidings]()
    with Herald(store, Told(), told.put), Notary(store, coordinator.house.ledger) as notary:
        notary.append(revocation(mona), caller(mona))
        assert told.get(timeout=10).revoked == [mona.name]
    store.close()


def test_progress_that_comes_after_the_end_goes(
    coordinator: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from another replica, that did not hear of the end yet."""
    monkeypatch.setattr(heralds, "LOOK_SECONDS", 0.05)
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, reference, other = prepared(coordinator, north)
    carla.state(order_line("north/1", other))
    carla.state(order_line("north/1", reference))
    carla.state(pb.ExecutionCancelled(execution_ids=[1], reason="mistake"))
    store, fleet, swept = Store(coordinator.settings.store_url), Fleet(), threading.Event()

    def tell(tidings: Tidings) -> None:
        fleet.spread(tidings)
        swept.set()

    with Herald(store, fleet, tell):
        said = Doing(Word(1, 1), datetime.now(UTC), pb.EXECUTION_STATE_RUNNING, "infer")
        for number in (1, 2):
            fleet.merge_progress(number, said)
        assert swept.wait(10)
    store.close()
    assert fleet.all_progress() == [(2, said)]


@pytest.mark.parametrize("regained", [0, 5])
def test_what_takes_the_place_of_lost_entries_is_told(coordinator: World, regained: int) -> None:
    """A standby that lacked the last three took over; it has fewer entries, or more, by the time
    that the herald looks."""
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    scribe = Scribe(coordinator.house)
    store, told = Store(coordinator.settings.store_url), queue.Queue[Tidings]()
    with Notary(store, coordinator.house.ledger) as notary:
        for _ in range(3):
            notary.append(scribe.envelope(), scribe.caller)
    with Herald(store, Told(), told.put) as herald:
        with store.read() as reader:
            size = reader.tree_size() - 3
        with store.engine.begin() as connection:
            for lost in (
                f"ledger_entry WHERE ledger_index >= {size}",
                f"ledger_node WHERE (number + 1) * (1 << CAST(level AS INTEGER)) > {size}",
                f"join_token WHERE issued_index >= {size}",
            ):
                connection.execute(text(f"DELETE FROM {lost}"))
        store.engine.dispose()  # as every connection to a server that is gone
        with Notary(store, coordinator.house.ledger) as notary:
            notary.append(revocation(mona), caller(mona))
            for _ in range(regained):
                notary.append(scribe.envelope(), scribe.caller)
        herald.wake()
        assert told.get(timeout=10).revoked == [mona.name]
    store.close()


def test_a_defect_is_tried_again_and_seen(
    coordinator: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is left without news; the watchdog hears of it where it lasts."""
    monkeypatch.setattr(heralds, "RETRY_SECONDS", 0.05)
    mona = coordinator.join("mona", pb.ROLE_PERSON)
    store, told = Store(coordinator.settings.store_url), queue.Queue[Tidings]()
    broken, tried = threading.Event(), threading.Event()
    broken.set()

    def tell(tidings: Tidings) -> None:
        tried.set()
        if broken.is_set():
            raise RuntimeError("a defect")
        told.put(tidings)

    with Herald(store, Told(), tell) as herald:
        mona_revoked = revocation(mona)
        herald.check()
        with Notary(store, coordinator.house.ledger) as notary:
            notary.append(mona_revoked, caller(mona))
        herald.wake()
        assert tried.wait(10)
        with monkeypatch.context() as patch:
            patch.setattr(heralds, "STUCK_SECONDS", 0.0)
            with pytest.raises(Stuck, match="sites hear of nothing new"):
                herald.check()
        broken.clear()
        assert told.get(timeout=10).revoked == [mona.name]
        herald.check()
    store.close()


def test_a_cancellation_of_very_many_holds_up_nobody(
    coordinator: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was accepted before they were counted."""
    monkeypatch.setattr(opening, "check_bounds", lambda opened: None)
    north = coordinator.join("north", pb.ROLE_SITE)
    carla, _, other = prepared(coordinator, north)
    carla.state(order_line("north/1", other))
    store, told = Store(coordinator.settings.store_url), queue.Queue[Tidings]()
    with Herald(store, Told(), told.put) as herald:
        carla.state(pb.ExecutionCancelled(execution_ids=[1] * 66_000, reason="x"))
        herald.wake()
        found = told.get(timeout=10)
    with store.read() as reader:
        assert sites_of(reader, [1, *range(3, 70_000), 1]) == [(1, north.name)]
    store.close()
    assert [m.WhichOneof("message") for _, m in found.mail if not isinstance(m, int)][
        -1
    ] == "cancel"
    assert found.ended == [1]


@pytest.mark.parametrize("answers", [True, False])
def test_a_no_counts_as_an_answer_where_the_store_says_it_to_everybody(
    coordinator: World, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(heralds, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(heralds, "STUCK_SECONDS", 0.3)
    store, tried = Store(coordinator.settings.store_url), threading.Semaphore(0)

    def fails(*_: object) -> None:
        tried.release()
        raise Refusal(Kind.UNAVAILABLE, "STORE_UNREACHABLE", "away")

    herald = Herald(store, Told(), lambda tidings: None)
    monkeypatch.setattr(heralds, "heads", fails)
    if not answers:
        monkeypatch.setattr(store, "read", fails)
    with herald:
        for _ in range(20):
            assert tried.acquire(timeout=10)
        if answers:
            with pytest.raises(Stuck):
                herald.check()
        else:
            herald.check()
    monkeypatch.undo()
    store.close()


def revocation(party: Party) -> bytes:
    payload = statement.build(pb.ParticipantRevoked(name=party.name, reason="x"), {"x": sha("x")})
    return statement.sign(payload, party.identity.signing_key)


def caller(party: Party) -> Caller:
    return Caller(party.name, CallerRole.PERSON, "", datetime.now(UTC))
