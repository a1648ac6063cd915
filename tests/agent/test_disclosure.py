"""What leaves a site of its preparations: nothing, their steps, or shares of cases; never cases."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from agent import report
from agent.disclosure import LEAST_CASES
from housecall.errors import Refusal
from housecall.rpc import refusals
from housecall.v1 import fleet_pb2, site_pb2
from housecall.v1 import registry_pb2 as reg
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.site import Bench, Site, prepare, wait_for
from tests.agent.test_link import at_double, welcome
from tests.coordinator.world import sha


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.server.LOOK_S", 0.1)
    monkeypatch.setattr("agent.disclosure.READ_S", 0.0)


@dataclass
class Slow:
    """A `prepare` that writes `table` as its report, says so, and goes on when it may."""

    table: dict[str, dict[str, object]]
    wrote: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, step: FakeStep) -> int:
        if step.spec.labels["housecall.step"] != "prepare":
            return prepare(step)
        done = prepare(step)
        step.path("/report.yaml").write_text(yaml.safe_dump(self.table))
        self.wrote.set()
        self.go.wait(site.SECONDS)
        return done


def cases(**numbers: int) -> dict[str, dict[str, object]]:
    """A report with that many cases by status."""
    names = {
        f"case-{status}-{number}": status
        for status, count in numbers.items()
        for number in range(count)
    }
    return {
        "status": dict.fromkeys(names, 1),
        "status_name": dict(names),
        "comment": {name: f"Jane Doe, {name}" for name in names},
    }


@contextlib.contextmanager
def serving(bench: Bench, folder: Path, consent: str, minimum_count: int = 0) -> Iterator[Site]:
    settings = site.enrolled(
        bench, folder, report_preparations=consent, minimum_count=minimum_count
    )
    try:
        with site.serving(bench, folder, settings) as made:
            yield made
    finally:
        shutil.rmtree(settings.state_dir.parent, ignore_errors=True)


@contextlib.contextmanager
def working(bench: Bench, north: Site, script: Slow) -> Iterator[None]:
    """While `prepare` of north/1 runs, its report written."""
    bench.engine.add_image(sha("image of preparation"), script)
    north.register()
    thread = threading.Thread(target=north.prepare)
    thread.start()
    try:
        assert script.wrote.wait(site.SECONDS)
        yield
    finally:
        script.go.set()
        thread.join()


def seen(bench: Bench) -> fleet_pb2.Preparing | None:
    """By a member of the benchmark's committee; None where the dataset is not theirs to see."""
    try:
        with refusals("coordinator"):
            request = reg.GetDatasetRequest(id="north/1")
            return bench.carla.registry.GetDataset(request).dataset.preparing
    except Refusal:
        return None


def state(bench: Bench) -> str:
    found = seen(bench)
    if found is None:
        return ""
    return fleet_pb2.PreparationState.Name(found.state).removeprefix("PREPARATION_STATE_")


def test_the_committee_follows_the_shares_to_the_end(bench: Bench, tmp_path: Path) -> None:
    script = Slow(cases(done=30, todo=10))
    with serving(bench, tmp_path, "shares") as north:
        with working(bench, north, script):
            expected = fleet_pb2.Preparing(
                dataset_id="north/1",
                state=fleet_pb2.PREPARATION_STATE_PREPARING,
                step="prepare",
                benchmark_id=1,
                shares={"done": 75, "todo": 25},
            )
            wait_for(lambda: seen(bench) == expected)
            assert north.dataset().reported == expected
            report_file = north.settings.state_dir / "datasets" / "1" / "report.yaml"
            report_file.write_text("{status: {half")
            north.agent.disclosure.look()
            assert north.dataset().reported == expected, "a report that is being written"
            report_file.write_text(yaml.safe_dump(cases(done=40)))
            wait_for(lambda: (said := seen(bench)) and dict(said.shares) == {"done": 100})
        wait_for(lambda: state(bench) == "PREPARED")
        north.operational()
        wait_for(lambda: seen(bench) is None)
        wait_for(lambda: not north.dataset().HasField("reported"))


@pytest.mark.parametrize(("consent", "minimum_count"), [("steps", 0), ("shares", 41)])
def test_steps_are_told_without_shares(
    bench: Bench, tmp_path: Path, consent: str, minimum_count: int
) -> None:
    (tmp_path / "hospital" / "data").mkdir(parents=True)
    (tmp_path / "hospital" / "data" / "todo").write_text("by hand")
    script = Slow(cases(done=30, todo=10))
    with serving(bench, tmp_path, consent, minimum_count) as north:
        with working(bench, north, script):
            wait_for(lambda: state(bench) == "PREPARING")
            told = wait_for(lambda: [it for it in [seen(bench)] if it and it.step])
            (said,) = told
            assert (said.step, dict(said.shares)) == ("prepare", {})
        wait_for(lambda: state(bench) == "OUTSTANDING")
        said = wait_for(lambda: seen(bench))
        assert (said.step, dict(said.shares)) == ("", {})


def test_nothing_is_told_by_default(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    script = Slow(cases(done=30, todo=10))
    with site.serving(bench, tmp_path, settings) as north, working(bench, north, script):
        north.agent.disclosure.look()
        assert not north.dataset().HasField("reported")
        assert seen(bench) is None
        script.go.set()
        wait_for(lambda: north.dataset().state == site_pb2.LOCAL_DATASET_STATE_PREPARED)
    with at_double(bench, settings) as (coordinator, agent):
        coordinator.send(welcome=welcome(bench, agent))
        wait_for(lambda: agent.link.state.connected)
        agent.disclosure.look()
        agent.link.reconnect()
        hellos = coordinator.wait_said("hello", 2)
        assert not any(each.hello.preparing for each in hellos)
        assert not coordinator.said("preparing")
    shutil.rmtree(settings.state_dir.parent, ignore_errors=True)


def test_it_is_said_again_after_a_cut_and_a_restart(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path, report_preparations="steps")
    bench.engine.add_image(sha("image of preparation"), lambda _: 7)
    with site.serving(bench, tmp_path, settings) as north:
        north.register()
        with pytest.raises(Refusal):
            north.prepare()
        wait_for(lambda: state(bench) == "BROKEN")
    with at_double(bench, settings) as (coordinator, agent):
        coordinator.send(welcome=welcome(bench, agent))
        wait_for(lambda: agent.disclosure.told())
        agent.link.reconnect()
        said = coordinator.wait_said("hello", 2)[-1].hello.preparing
        assert [each.dataset_id for each in said] == ["north/1"]
        assert said[0].state == fleet_pb2.PREPARATION_STATE_BROKEN
    with site.serving(bench, tmp_path, settings):
        wait_for(lambda: state(bench) == "BROKEN")
    withdrawn = settings.model_copy(update={"report_preparations": "off"})
    with site.serving(bench, tmp_path, withdrawn):
        wait_for(lambda: seen(bench) is None)
    shutil.rmtree(settings.state_dir.parent, ignore_errors=True)


def test_a_registration_without_receipt_is_not_told(bench: Bench, tmp_path: Path) -> None:
    with serving(bench, tmp_path, "steps") as north:
        draft = north.draft("DraftDataset", north.registration())
        north.agent.link.close()
        wait_for(lambda: not north.agent.link.state.connected)
        north.agent.releases.receipt_seconds = 0.1
        north.release(draft)
        north.agent.catalog.update(1, state="BROKEN")
        north.agent.disclosure.look()
        assert not north.agent.disclosure.told()


def shares(tmp_path: Path, table: object, least: int = LEAST_CASES) -> dict[str, int] | None:
    path = tmp_path / "report.yaml"
    path.write_text(yaml.safe_dump(table))
    return report.shares(path, least)


def test_few_cases_are_not_told(tmp_path: Path) -> None:
    assert shares(tmp_path, cases(done=9)) == {}
    assert shares(tmp_path, cases(done=10)) == {"done": 100}
    assert shares(tmp_path, cases(done=20), least=21) == {}
    assert shares(tmp_path, cases(done=91, broken=9)) == {"done": 91, "other": 9}


def test_hostile_reports_tell_no_names(tmp_path: Path) -> None:
    names = [f"Jane Doe {number}" for number in range(500)]
    as_status = {"status": dict.fromkeys(names, 1), "status_name": {name: name for name in names}}
    assert shares(tmp_path, as_status) == {"other": 100}
    one_for_many = {
        "status": dict.fromkeys(names, 1),
        "status_name": {name: names[number // 100] for number, name in enumerate(names)},
    }
    assert shares(tmp_path, one_for_many) == {"other": 100}
    odd = ["/data/jane", "a" * 41, "1990-01-01", "line\nbreak", "jané", "two, three"]
    tables = cases(**dict.fromkeys(odd, 20), fine=80)
    assert shares(tmp_path, tables) == {"fine": 40, "other": 60}
    many = cases(**{f"status {number:02}": 10 for number in range(25)})
    told = shares(tmp_path, many)
    assert told is not None
    assert (len(told), told["other"]) == (21, 20)
    no_names = {"status": dict.fromkeys(names, "x"), "status_name": [names]}
    assert shares(tmp_path, no_names) == {"x": 100}
    assert shares(tmp_path, {"status": names}) == {}
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"status:" + b" " * report.MAX_REPORT_BYTES + b"{a: 1}")
    assert report.shares(huge, LEAST_CASES) is None


def test_a_report_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(yaml.safe_dump(cases(done=30)))
    (tmp_path / "report.yaml").symlink_to(elsewhere)
    assert report.shares(tmp_path / "report.yaml", LEAST_CASES) is None
