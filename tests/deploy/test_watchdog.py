"""The agent's watchdog: what hangs is not fed; what is away, or only says no, is none of its."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.pulse import Pulse
from housecall.errors import Kind, Refusal
from housecall.notify import feeding_interval
from housecall.watchdog import Stuck, fed
from tests.agent import site
from tests.agent.site import Site
from tests.deploy.notices import WATCHDOG_S, Notices


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose agent serves."""
    folder = tmp_path_factory.mktemp("site")
    with site.bench(folder / "coordinator") as bench:
        settings = site.enrolled(bench, folder)
        with site.serving(bench, folder, settings) as made:
            yield made


@pytest.fixture
def pulse(north: Site) -> Iterator[Pulse]:
    with contextlib.closing(Pulse(north.agent)) as made:
        yield made


def test_the_interval_is_systemds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert feeding_interval() is None
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert feeding_interval() == 20
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert feeding_interval() is None


def test_an_agent_is_fed_until_its_journal_is_stuck(
    north: Site, pulse: Pulse, notices: Notices
) -> None:
    with fed(pulse.check):
        assert notices.fed()
        held, free = threading.Event(), threading.Event()

        def hold() -> None:
            with north.agent.journal.transaction():
                held.set()
                free.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        try:
            assert notices.starved()
        finally:
            free.set()
            holder.join()
        assert notices.fed()


def test_an_agent_whose_engine_and_coordinator_are_away_is_fed(
    tmp_path: Path, notices: Notices
) -> None:
    with contextlib.ExitStack() as stack:
        with site.bench(tmp_path / "coordinator") as bench:
            made = stack.enter_context(
                site.serving(bench, tmp_path, site.enrolled(bench, tmp_path))
            )
            pulse = stack.enter_context(contextlib.closing(Pulse(made.agent)))
        made.bench.engine.unreachable = True
        site.wait_for(lambda: not made.agent.link.state.connected)
        with fed(pulse.check):
            assert notices.fed()


def test_a_link_that_hangs_is_found(north: Site, pulse: Pulse) -> None:
    state = north.agent.link.state
    site.wait_for(lambda: state.busy_since is None)
    pulse.check()
    state.busy_since = -1e9
    with pytest.raises(Stuck, match="link has been busy"):
        pulse.check()
    state.rests()


def test_a_lost_slot_is_found(north: Site, pulse: Pulse, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Thread(name="slot-0")
    monkeypatch.setattr(north.agent.worker, "_threads", [ended])
    with pytest.raises(Stuck, match="slot-0"):
        pulse.check()


def test_a_local_api_that_does_not_answer_is_found(north: Site) -> None:
    """The last of this site's tests: nobody can call it afterwards."""
    north.settings.socket.unlink()
    with contextlib.closing(Pulse(north.agent)) as pulse, pytest.raises(Stuck, match="local API"):
        pulse.check()


def test_what_is_no_refusal_feeds_nothing(notices: Notices) -> None:
    said: list[Exception] = [ValueError("a defect"), Stuck("it does not move")]

    def probe() -> None:
        raise said[0]

    with fed(probe):
        assert not notices.fed_within(WATCHDOG_S)
        said[0] = Refusal(Kind.UNAVAILABLE, "STORE_UNREACHABLE", "away")
        assert notices.fed()
