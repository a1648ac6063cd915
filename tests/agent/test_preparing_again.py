"""Preparations that are asked for again, stopped, cut off, or come beside a release."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agent.catalog import Dataset
from agent.settings import Settings
from agent.worker import Job
from housecall import statement
from housecall.errors import Refusal
from housecall.fingerprint import pool
from housecall.fingerprint.hashing import Unit, hash_unit
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.site import Bench, Site, prepare, wait_for
from tests.agent.test_adoption import background
from tests.agent.test_preparation import code
from tests.coordinator.world import sha

REGISTERED = site_pb2.LOCAL_DATASET_STATE_REGISTERED
PREPARED = site_pb2.LOCAL_DATASET_STATE_PREPARED
OPERATIONAL = site_pb2.LOCAL_DATASET_STATE_OPERATIONAL


class Gated:
    """A preparation container that waits for the test, and can be stopped."""

    def __init__(self, bench: Bench) -> None:
        self.opened, self.steps = threading.Event(), list[FakeStep]()
        bench.engine.add_image(sha("image of preparation"), self._run)

    def _run(self, step: FakeStep) -> int:
        if step.spec.labels["housecall.step"] == "prepare":
            self.steps.append(step)
            while not self.opened.wait(0.02):
                if step.stopping.is_set():
                    return 143
        return prepare(step)


def stop_preparation(north: Site) -> None:
    with north.api() as api:
        api.StopPreparation(site_pb2.StopPreparationRequest(dataset_id="north/1"))


def at_rest(north: Site) -> bool:
    return north.agent.worker.find("dataset:1") is None


def fill_slots(north: Site, until: threading.Event) -> None:
    def busy(job: Job) -> None:
        while not until.wait(0.02) and not job.stop.asked():
            pass

    for number in range(north.settings.slots):
        north.agent.worker.queue(f"busy {number}", busy)


def draft_operational(north: Site) -> site_pb2.WorkEvent.Draft:
    request = site_pb2.DraftOperationalRequest(dataset_id="north/1")
    return north.draft("DraftOperational", request)


def test_an_operational_one_is_not_prepared_though_both_were_asked_at_once(
    bench: Bench, north: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    north.register()
    north.prepare()
    draft, steps = draft_operational(north), len(bench.engine.started)
    asked = north.agent.datasets._preparation.begin

    def begin(number: int) -> bool:
        north.release(draft)
        return asked(number)

    monkeypatch.setattr(north.agent.datasets._preparation, "begin", begin)
    assert code(north.prepare) == "DATASET_OPERATIONAL"
    assert north.dataset().state == OPERATIONAL
    assert len(bench.engine.started) == steps


def test_one_that_is_prepared_again_does_not_become_operational(bench: Bench, north: Site) -> None:
    north.register()
    north.prepare()
    draft, gated = draft_operational(north), Gated(bench)
    with background(lambda: north.prepare()):
        wait_for(lambda: gated.steps)
        assert code(lambda: north.release(draft)) == "DRAFT_OUTDATED"
        gated.opened.set()
    wait_for(lambda: at_rest(north))
    assert north.dataset().state == PREPARED


def test_stopped_before_its_turn_it_stays_what_it_was(north: Site) -> None:
    north.register()
    north.prepare()
    go = threading.Event()
    fill_slots(north, go)
    job = north.agent.datasets.prepare("north/1")
    stop_preparation(north)
    go.set()
    with pytest.raises(Refusal, match="was stopped"):
        job.outcome()
    dataset = north.dataset()
    assert (dataset.state, len(dataset.steps)) == (PREPARED, 3)


def test_an_engine_that_is_away_takes_nothing_from_what_was_prepared(
    bench: Bench, north: Site
) -> None:
    north.register()
    north.prepare()
    bench.engine.unreachable = True
    assert code(north.prepare) == "ENGINE_UNREACHABLE"
    bench.engine.unreachable = False
    assert north.dataset().state == PREPARED
    said = statement.open_payload(draft_operational(north).statements[0])[1]
    assert isinstance(said, pb.DatasetOperational)
    assert [step.name for step in said.steps] == ["prepare", "sanity_check", "statistics"]


def test_stopped_while_a_new_agent_waits_for_the_engine_it_stays_stopped(
    bench: Bench, tmp_path: Path
) -> None:
    settings, gated = site.enrolled(bench, tmp_path), Gated(bench)
    with site.serving(bench, tmp_path, settings) as north:
        north.register()
        with background(lambda: north.prepare()):
            wait_for(lambda: gated.steps and north.agent.journal.begun_steps())
            north.agent.worker.close(5)
    bench.engine.unreachable = True
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: not at_rest(north))
        stop_preparation(north)
        wait_for(lambda: at_rest(north))
        assert north.dataset().state == REGISTERED
        bench.engine.unreachable = False
        gated.opened.set()
        north.agent.datasets.reconcile()
        assert at_rest(north)


def queued_and_cut_off(bench: Bench, folder: Path, settings: Settings) -> None:
    with site.serving(bench, folder, settings) as north:
        north.register()
        fill_slots(north, threading.Event())
        north.agent.datasets.prepare("north/1")


def test_one_that_had_no_turn_is_prepared_by_the_next_agent(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    queued_and_cut_off(bench, tmp_path, settings)
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: north.dataset().state == PREPARED)
        assert len(north.dataset().steps) == 3


def test_an_agent_that_stops_hashes_nothing_first(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, hashed = site.enrolled(bench, tmp_path), list[object]()
    require = "agent.fingerprints.Fingerprinter.require"
    monkeypatch.setattr(require, lambda *given, **_: hashed.append(given))
    queued_and_cut_off(bench, tmp_path, settings)
    assert not hashed


def test_what_ended_just_now_is_not_prepared_again(
    bench: Bench, north: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    north.register()
    gated, catalog = Gated(bench), north.agent.catalog
    look = catalog.all

    def ended_meanwhile() -> list[Dataset]:
        found = look()
        gated.opened.set()
        wait_for(lambda: at_rest(north))
        return found

    with background(lambda: north.prepare()):
        wait_for(lambda: gated.steps)
        with monkeypatch.context() as patch:
            patch.setattr(catalog, "all", ended_meanwhile)
            north.agent.datasets.reconcile()
    wait_for(lambda: at_rest(north))
    assert len(gated.steps) == 1
    assert north.dataset().state == PREPARED


def test_hashing_ends_when_it_is_asked_to_stop(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, hashing = site.enrolled(bench, tmp_path), threading.Event()
    slow = threading.Event()

    def slowly(unit: Unit, buffer: memoryview) -> bytes:
        hashing.set()
        slow.wait(0.2)
        return hash_unit(unit, buffer)

    with site.serving(bench, tmp_path, settings) as north:
        north.register()
        raw = Path(north.dataset().data_path)
        for number in range(200):
            (raw / f"{number}.txt").write_bytes(bytes(2**20))
        monkeypatch.setattr(pool, "hash_unit", slowly)
        job = north.agent.datasets.prepare("north/1")
        assert hashing.wait(10)
        stop_preparation(north)
        assert job.wait(10), "two hundred files of a fifth of a second each"
        slow.set()
