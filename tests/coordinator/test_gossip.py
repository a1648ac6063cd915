"""What replicas tell each other, over a real PostgreSQL, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import exc

from coordinator import gossip as gossips
from coordinator import replicas
from coordinator.fleet import Fleet
from coordinator.gossip import Gossip
from coordinator.preparations import Preparation
from coordinator.replicas import Replicas
from coordinator.session import Session
from coordinator.standing import Doing, Standing, Word
from coordinator.store import Store
from coordinator.store.bus import MOST_BYTES, Bus, PostgresBus, bus_of
from housecall.errors import Refusal
from housecall.v1 import fleet_pb2
from housecall.v1 import statements_pb2 as pb

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass
class Replica:
    fleet: Fleet
    gossip: Gossip
    known: Replicas
    bus: Bus
    talking: asyncio.Task[None]

    def attach(
        self, site: str, number: int, session_id: str = "", *, yields: bool = False
    ) -> Session:
        standing = Standing(
            connected=True,
            connected_at=NOW,
            agent_version="1.2.3",
            replica=self.fleet.replica,
            number=number,
            session_id=session_id,
            yields=yields,
        )
        return self.fleet.attach(site, standing, lambda: None)

    async def silenced(self) -> None:
        self.talking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.talking

    def speaks(self) -> None:
        self.talking = asyncio.create_task(self.gossip.run())


def itself(name: str) -> replicas.Replica:
    return replicas.Replica(name, f"host of {name}", "1.2.3", "db:5432/housecall", NOW)


@contextlib.asynccontextmanager
async def replica(name: str, url: str) -> AsyncIterator[Replica]:
    store = Store.create(url)
    bus, fleet, known = bus_of(store), Fleet(name), Replicas(itself(name))
    gossip = Gossip(bus, fleet, known)
    bus.open(gossip.ears(lambda: None))
    made = Replica(fleet, gossip, known, bus, asyncio.create_task(gossip.run()))
    try:
        yield made
    finally:
        await made.silenced()
        await asyncio.to_thread(bus.close)
        store.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossips, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(gossips, "GONE_SECONDS", 0.5)


def test_a_newcomer_is_told_everything_in_notes_that_fit(postgresql_url: str) -> None:
    async def story() -> None:
        async with replica("a", postgresql_url) as a:
            names = [f"spiffe://test/site/{number}" for number in range(300)]
            sessions = [a.attach(name, number) for number, name in enumerate(names)]
            disk = fleet_pb2.WAIT_REASON_DISK
            said = fleet_pb2.Progress(
                execution_id=7, state=pb.EXECUTION_STATE_QUEUED, step="é" * 1000, waits_for=disk
            )
            a.fleet.progress(sessions[9], said, NOW)
            async with replica("b", postgresql_url) as b:
                await until(lambda: all(b.fleet.standing(name).connected for name in names))
                assert b.fleet.standing(names[9]) == a.fleet.standing(names[9])
                await until(lambda: b.fleet.progress_of(7) is not None)
                known = Doing(Word(9, 1), NOW, said.state, "é" * 100, disk)
                assert b.fleet.progress_of(7) == known

    asyncio.run(story())


def test_preparations_are_told_until_their_site_has_a_newer_stream(postgresql_url: str) -> None:
    async def story() -> None:
        async with replica("a", postgresql_url) as a:
            names = [f"north/{number}" for number in range(50)]
            earlier = a.attach("north", 1)
            shares = {f"a status of that number and more {number}": 5 for number in range(20)}
            state = fleet_pb2.PREPARATION_STATE_BROKEN
            said = [
                fleet_pb2.Preparing(dataset_id=name, state=state, shares=shares) for name in names
            ]
            a.fleet.preparing(earlier, said, NOW)
            async with replica("b", postgresql_url) as b:

                def known(name: str) -> Preparation | None:
                    return b.fleet.preparation_of(name, "north")

                await until(lambda: all(known(name) for name in names))
                assert known("north/49") == a.fleet.preparation_of("north/49", "north")
                now = b.attach("north", 2)
                assert known("north/1") is None, "the newer stream has not said it"
                await until(lambda: not a.fleet.is_here("north"))
                again = fleet_pb2.Preparing(
                    dataset_id="north/1", state=fleet_pb2.PREPARATION_STATE_PREPARED
                )
                b.fleet.preparing(now, [again], NOW)
                a.fleet.preparing(earlier, said, NOW)  # by a stream that is served no more
                await until(lambda: a.fleet.preparation_of("north/1", "north") is not None)
                assert a.fleet.preparation_of("north/1", "north") == known("north/1")
                assert a.fleet.preparation_of("north/2", "north") is None

    asyncio.run(story())


def test_what_fits_in_no_note_is_lost_alone(
    postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a dataset's id that was accepted before ids were short."""
    names = ["north/1", "north/" + "1" * 9000, "north/2"]

    async def story() -> None:
        async with replica("a", postgresql_url) as a, replica("b", postgresql_url) as b:
            await until(lambda: bool(a.known) and bool(b.known))
            north, state = a.attach("north", 1), fleet_pb2.PREPARATION_STATE_BROKEN
            said = [fleet_pb2.Preparing(dataset_id=name, state=state) for name in names]
            a.fleet.preparing(north, said, NOW)
            await until(lambda: set(b.fleet.preparations.all()) == {names[0], names[2]})
            a.bus.say("x" * 9000)
            a.attach("south", 2)
            await until(lambda: b.fleet.standing("south").connected)

    with caplog.at_level("WARNING"):
        asyncio.run(story())
    assert {record.getMessage() for record in caplog.records} == {
        "a note is too long, and is not said",
        "a note cannot be said",
    }


def working(state: pb.ExecutionState.ValueType) -> fleet_pb2.Progress:
    return fleet_pb2.Progress(execution_id=7, state=state)


def test_the_newest_word_counts_whatever_the_clocks_say(postgresql_url: str) -> None:
    """One replica's clock is ahead; the site moves from it to another, whose clock is right."""
    ahead = NOW + timedelta(hours=20)

    def state(at: Replica) -> int:
        doing = at.fleet.progress_of(7)
        return doing.state if doing else 0

    async def story() -> None:
        async with replica("a", postgresql_url) as a, replica("b", postgresql_url) as b:
            old = a.attach("north", 1)
            a.fleet.progress(old, working(pb.EXECUTION_STATE_WAITING_CONSENT), ahead)
            await until(lambda: state(b) == pb.EXECUTION_STATE_WAITING_CONSENT)
            north = b.attach("north", 2)
            await until(lambda: not a.fleet.is_here("north"))
            b.fleet.progress(north, working(pb.EXECUTION_STATE_RUNNING), NOW)
            await until(lambda: state(a) == pb.EXECUTION_STATE_RUNNING)
            a.fleet.progress(old, working(pb.EXECUTION_STATE_FAILED), ahead)  # served no more
            async with replica("c", postgresql_url) as c:  # all tell it everything
                await until(lambda: state(c) == pb.EXECUTION_STATE_RUNNING)
            assert state(a) == state(b) == pb.EXECUTION_STATE_RUNNING

    asyncio.run(story())


def test_the_later_word_of_a_stream_counts_though_its_clock_was_set_back(
    postgresql_url: str,
) -> None:
    preparing, prepared = (
        fleet_pb2.PREPARATION_STATE_PREPARING,
        fleet_pb2.PREPARATION_STATE_PREPARED,
    )

    async def story() -> None:
        async with replica("a", postgresql_url) as a, replica("b", postgresql_url) as b:
            north = a.attach("north", 1)

            def say(
                order: pb.ExecutionState.ValueType,
                preparation: fleet_pb2.PreparationState.ValueType,
                now: datetime,
            ) -> None:
                said = fleet_pb2.Preparing(dataset_id="north/1", state=preparation)
                a.fleet.progress(north, working(order), now)
                a.fleet.preparing(north, [said], now)

            def heard() -> tuple[int, int]:
                doing, known = b.fleet.progress_of(7), b.fleet.preparation_of("north/1", "north")
                return doing.state if doing else 0, known.state if known else 0

            say(pb.EXECUTION_STATE_QUEUED, preparing, NOW + timedelta(hours=20))
            await until(lambda: heard() == (pb.EXECUTION_STATE_QUEUED, preparing))
            say(pb.EXECUTION_STATE_RUNNING, prepared, NOW)
            await until(lambda: heard() == (pb.EXECUTION_STATE_RUNNING, prepared))

    asyncio.run(story())


def test_a_replica_that_falls_silent_is_forgotten_and_found_again(postgresql_url: str) -> None:
    async def story() -> None:
        async with replica("a", postgresql_url) as a, replica("b", postgresql_url) as b:
            a.attach("north", 1)
            await until(lambda: b.fleet.standing("north").connected)
            await a.silenced()
            await until(lambda: not b.fleet.standing("north").connected)
            assert b.fleet.standing("north").agent_version == "1.2.3"
            a.speaks()
            await until(lambda: b.fleet.standing("north").connected)
            a.gossip.bye()
            await until(lambda: not b.fleet.standing("north").connected)

    asyncio.run(story())


def test_replicas_know_what_the_others_are_until_they_stop(postgresql_url: str) -> None:
    async def story() -> None:
        async with replica("a", postgresql_url) as a, replica("b", postgresql_url) as b:
            both = [itself("a"), itself("b")]
            await until(lambda: [a.known.all(), b.known.all()] == [both, both])
            await b.silenced()
            b.gossip.bye()
            await until(lambda: a.known.all() == [itself("a")])

    asyncio.run(story())


def test_whoever_did_not_hear_itself_lately_waits_until_it_does(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gossips, "CURRENT_SECONDS", 0.3)

    async def story() -> None:
        async with replica("a", postgresql_url) as a, asyncio.timeout(20):
            await a.gossip.current()
            await a.silenced()
            silent = time.monotonic()
            await until(lambda: time.monotonic() - silent > 0.3)
            waiting = asyncio.create_task(a.gossip.current())
            for _ in range(10):
                await asyncio.sleep(0)
            assert not waiting.done()
            a.speaks()
            await waiting

    asyncio.run(story())


@pytest.mark.parametrize("served_before", ["there", "here"])
def test_a_claim_that_its_replica_did_not_hear_leaves_no_stream_behind(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, served_before: str
) -> None:
    """The other one heard it, and gave way. It comes to know that nothing followed."""
    monkeypatch.setattr(gossips, "GONE_SECONDS", 60.0)
    monkeypatch.setattr(gossips, "HEARD_SECONDS", 0.5)

    async def story() -> None:
        async with replica("a", postgresql_url) as a, replica("b", postgresql_url) as b:
            await until(lambda: bool(a.known) and bool(b.known))
            where, other = (a, b) if served_before == "here" else (b, a)
            where.attach("north", 1, "x")
            await until(lambda: other.fleet.standing("north").connected)
            assert isinstance(a.bus, PostgresBus)
            ears = a.bus._ears
            with monkeypatch.context() as patch:  # as while its connection is away
                patch.setattr(a.bus, "_ears", replace(ears, heard=lambda _: None))
                patch.setattr(a.bus, "say", lambda _: None)
                with pytest.raises(Refusal) as caught:
                    await a.gossip.claim(
                        "north", Standing(connected=True, replica="a", session_id="y")
                    )
                assert caught.value.code == "BUS_DOWN"
                await until(lambda: b.fleet.standing("north").session_id == "y")
                assert not b.fleet.is_here("north")
            ears.up()
            if served_before == "here":
                await until(lambda: b.fleet.standing("north").session_id == "x")
                assert a.fleet.is_here("north")
            else:
                await until(lambda: not b.fleet.standing("north").connected)
                assert b.fleet.admit("north", fleet_pb2.Hello(session_id="x", yields=True))
            await until(lambda: a.fleet.standing("north") == b.fleet.standing("north"))

    asyncio.run(story())


def test_a_claim_that_the_database_refuses_says_why(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with replica("a", postgresql_url) as a:
            await until(a.bus.is_up)
            assert isinstance(a.bus, PostgresBus)

            def slow(*_: object) -> Any:
                raise exc.TimeoutError("no connection")

            monkeypatch.setattr(a.bus._engine, "begin", slow)
            with pytest.raises(Refusal) as caught:
                await a.gossip.claim("north", Standing(connected=True, replica="a"))
            assert caught.value.code == "STORE_SLOW"

    asyncio.run(story())


@pytest.mark.parametrize("yields", [False, True])
def test_replicas_that_did_not_hear_of_each_other_agree_later(
    postgresql_url: str, yields: bool
) -> None:
    """Each serves an agent of the site, as after a cut between them. The newer one stays, unless
    it is the one that yields."""

    async def story() -> None:
        async with replica("a", postgresql_url) as a:
            a.attach("north", 5, "old")
            async with replica("b", postgresql_url) as b:
                b.attach("north", 6, "new", yields=yields)
                winner, loser = (a, b) if yields else (b, a)
                await until(lambda: not loser.fleet.is_here("north"))
                assert winner.fleet.is_here("north")
                served = winner.fleet.standing("north")
                assert served.session_id == ("old" if yields else "new")
                await until(lambda: loser.fleet.standing("north") == served)

    asyncio.run(story())


def test_claims_get_growing_numbers_and_the_last_one_stands(postgresql_url: str) -> None:
    async def story() -> None:
        async with replica("a", postgresql_url) as a, replica("b", postgresql_url) as b:
            await until(lambda: a.bus.is_up() and b.bus.is_up())
            found = []
            for each in (a, b, a, b):
                claimed = await each.gossip.claim(
                    "north", Standing(connected=True, replica=each.fleet.replica)
                )
                each.fleet.attach("north", claimed, lambda: None)
                found.append(claimed.number)
                other = b if each is a else a
                assert not other.fleet.is_here("north")  # it gave way before
            assert found == sorted(set(found))
            await until(lambda: a.fleet.standing("north") == b.fleet.standing("north"))

    asyncio.run(story())


def test_a_claim_that_is_outranked_while_it_waits_lets_the_next_one_go_on(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was served hangs; both wait for it, and only the last is served."""
    monkeypatch.setattr(gossips, "GONE_SECONDS", 60.0)
    monkeypatch.setattr(gossips, "LEFT_SECONDS", 0.3)

    async def story() -> None:
        async with replica("a", postgresql_url) as a, replica("b", postgresql_url) as b:
            await until(lambda: a.bus.is_up() and b.bus.is_up())
            for each in (a, b):
                each.fleet.merge("north", Standing(connected=True, replica="hangs", number=1))
            claims = await asyncio.gather(
                *(
                    each.gossip.claim("north", Standing(connected=True, replica=each.fleet.replica))
                    for each in (a, b)
                )
            )
            for each, claimed in zip((a, b), claims, strict=True):
                each.fleet.attach("north", claimed, lambda: None)
            last = max(claims, key=lambda claimed: claimed.number)
            await until(
                lambda: (
                    [r.fleet.is_here("north") for r in (a, b)]
                    == [claimed is last for claimed in claims]
                )
            )

    asyncio.run(story())


def test_a_standing_fits_in_a_note_whatever_its_agent_says() -> None:
    most = Standing(agent_version="\N{PILE OF POO}" * 100, session_id="é" * 100, heard_at=NOW)
    note = json.dumps({"claims": {"spiffe://test/site/" + "x" * 200: most.written()}})
    assert len(note.encode()) < MOST_BYTES - 200
