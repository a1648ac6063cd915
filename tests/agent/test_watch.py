"""A watch follows its container's log to the end, and lets go of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from agent.containers import Ready
from agent.engines.port import Exit, StepSpec
from agent.events import Feed
from agent.records import KeptStep
from agent.step import Cage, Clocks, Step
from agent.watch import LOST, Told, Watch
from agent.worker import Stop
from housecall.container_config import ContainerConfig
from housecall.errors import Kind, Refusal
from tests.agent.fake_engine import FakeEngine, FakeStep
from tests.agent.site import wait_for
from tests.agent.test_fake_engine import DIGEST, LIMITS

ENDED = Exit(0, False, "")
SIGHT_POLL_S = 0.2


class Ward:
    """One container, which says `begun` and goes on until the test ends it."""

    def __init__(self, folder: Path) -> None:
        self.engine, self.told, self.steps = FakeEngine(), Told(), list[FakeStep]()
        self.engine.add_image(DIGEST, self._run)
        labels = {"housecall.step": "infer"}
        self.id = self.engine.start(StepSpec("x", DIGEST, (), LIMITS, "1:1", labels))
        self.cage = Cage("1:1", LIMITS, 2**20, 1, "info", folder, 0, "0123456789abcdef")
        config = ContainerConfig("DockerImage", "", {})
        ready = Ready("", "", DIGEST, config, "", None, "", "")
        self.step = Step("dataset:1", ready, "infer", {}, {}, folder, Clocks(600, 600))
        self.kept = KeptStep("dataset:1", "infer", "RUNNING", b"", "", "x")

    def _run(self, step: FakeStep) -> int:
        self.steps.append(step)
        step.log("begun")
        step.stopping.wait(20)
        return 143

    def watch(self) -> Exit:
        given = (self.engine, self.cage, self.step, self.kept)
        return Watch(*given, feed=Feed(), told=self.told).until_end(self.id, Stop())

    def said(self) -> list[str]:
        return self.step.log.read_text().splitlines() if self.step.log.exists() else []


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def followers() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "log"}


def cut_off(ward: Ward, *then: Callable[[], None]) -> None:
    """The log breaks off; it ends before anybody listens again."""
    with ThreadPoolExecutor() as pool:
        watched = pool.submit(ward.watch)
        wait_for(lambda: ward.said() == ["begun"])
        ward.engine.cut_logs()
        for act in then:
            act()
        ward.steps[0].end(ENDED)
        assert watched.result(20) == ENDED


def test_the_last_words_are_heard_after_a_log_broke_off(ward: Ward) -> None:
    cut_off(ward, lambda: ward.steps[0].log("last words"))
    assert ward.said() == ["begun", "last words"]


def test_a_log_that_is_gone_in_the_end_costs_nothing(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(ward, lambda: monkeypatch.setattr(ward.engine, "logs", lambda _: iter(())))
    assert ward.said() == ["begun"]


def test_the_follower_ends_whatever_ended_the_watch(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = followers()

    def broken(*_: object) -> Exit:
        wait_for(lambda: ward.said() == ["begun"])
        raise OSError("no answer")

    monkeypatch.setattr(ward.engine, "wait", broken)
    with pytest.raises(OSError, match="no answer"):
        ward.watch()
    assert followers() - before
    ward.engine.cut_logs()
    wait_for(lambda: not followers() - before)


def test_who_was_left_listening_lets_go_when_another_watch_began(ward: Ward) -> None:
    before = followers()
    with ThreadPoolExecutor() as pool:
        watched = pool.submit(ward.watch)
        wait_for(lambda: ward.said() == ["begun"])
        ward.engine.unreachable = True
        with pytest.raises(Refusal, match="expected an answer"):
            watched.result(20)
        left = followers() - before
        assert left, "it still listens"
        ward.engine.unreachable = False
        watched = pool.submit(ward.watch)
        wait_for(lambda: followers() - before - left)
        ward.steps[0].log("more")
        wait_for(lambda: not followers() & left)
        ward.steps[0].end(ENDED)
        assert watched.result(20) == ENDED
    assert ward.said() == ["begun", "more"]


def test_one_that_only_the_engine_takes_for_running_is_lost(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.watch.SIGHT_POLL_S", SIGHT_POLL_S)
    before = followers()
    ward.engine.lost.add(ward.id)
    began = time.monotonic()
    assert ward.watch() == LOST
    assert not LOST.own, "it begins again"
    assert time.monotonic() - began > 2 * SIGHT_POLL_S, "the engine had time to learn its end"
    ward.engine.remove(ward.id)
    wait_for(lambda: not followers() - before)


def test_one_that_ends_between_two_looks_is_not_lost(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.watch.SIGHT_POLL_S", SIGHT_POLL_S)
    looks = list[str]()

    def ends(container_id: str) -> bool:
        looks.append(container_id)
        ward.steps[0].end(ENDED)
        return False

    monkeypatch.setattr(ward.engine, "may_run", ends)
    assert ward.watch() == ENDED
    assert looks == [ward.id]


def test_a_long_log_that_broke_off_is_no_silence(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine keeps the newest part of it: new lines have numbers below those told before."""
    monkeypatch.setattr("agent.watch.LIVE_GAP_S", 0.1)
    ward.step = replace(ward.step, clocks=Clocks(600, 2))
    whole, first = ward.engine.logs, [0]
    monkeypatch.setattr(ward.engine, "logs", lambda each: islice(whole(each), first[0], None))
    with ThreadPoolExecutor() as pool:
        watched = pool.submit(ward.watch)
        wait_for(lambda: ward.said() == ["begun"])
        for number in range(100):
            ward.steps[0].log(f"line {number}")
        wait_for(lambda: len(ward.said()) == 101)
        first[0] = 90
        ward.engine.cut_logs()
        wait_for(lambda: len(ward.said()) == 11)
        began = time.monotonic()
        while time.monotonic() < began + 4:
            assert not watched.done()
            ward.steps[0].log("alive")
            time.sleep(0.2)
        ward.steps[0].end(ENDED)
        assert watched.result(20) == ENDED
    assert ward.said()[-1] == "alive"


def test_the_last_words_of_a_long_log_are_kept(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, first, away = ward.engine.logs, [0], threading.Event()

    def logs(container_id: str) -> Iterator[str]:
        if away.is_set():
            raise Refusal(Kind.UNAVAILABLE, "ENGINE_UNREACHABLE", "")
        return islice(whole(container_id), first[0], None)

    monkeypatch.setattr(ward.engine, "logs", logs)
    with ThreadPoolExecutor() as pool:
        watched = pool.submit(ward.watch)
        wait_for(lambda: ward.said() == ["begun"])
        for number in range(100):
            ward.steps[0].log(f"line {number}")
        wait_for(lambda: len(ward.said()) == 101)
        away.set()
        ward.engine.cut_logs()
        first[0] = 95
        ward.steps[0].log("last")
        ward.steps[0].end(ENDED)
        away.clear()
        assert watched.result(20) == ENDED
    assert ward.said()[-1] == "last"
