"""Preparation: going on, hand edits, tasks for people against what is broken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from housecall.errors import Refusal
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent.fake_engine import FakeStep
from tests.agent.fake_engine import OutOfMemory as Oom
from tests.agent.site import Bench, Site, prepare, wait_for
from tests.coordinator.world import sha


def code(action: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value.code


def set_preparation(bench: Bench, script: Callable[[FakeStep], int]) -> None:
    bench.engine.add_image(sha("image of preparation"), script)


def prepared(north: Site, name: str) -> Path:
    return Path(north.dataset().prepared_path) / "data" / name


def test_hand_edits_stay_and_tasks_wait_for_a_person(north: Site) -> None:
    (north.data / "data" / "todo").write_text("look at me")
    north.register()
    events = north.prepare()
    assert "outstanding" in events[-1].done.text
    dataset = north.dataset()
    assert dataset.state == site_pb2.LOCAL_DATASET_STATE_OUTSTANDING
    assert dict(dataset.cases) == {"ready": 3, "todo": 1}
    assert "STEP_FAILED" in dataset.problem
    prepared(north, "a.txt").write_text("by hand")
    prepared(north, "todo").write_text("done")
    north.prepare()
    assert north.dataset().state == site_pb2.LOCAL_DATASET_STATE_PREPARED
    assert prepared(north, "a.txt").read_text() == "by hand"
    assert north.dataset().statistics["cases"] == 4


def test_a_failing_prepare_is_broken(bench: Bench, north: Site) -> None:
    set_preparation(bench, lambda _: 7)
    north.register()
    assert code(north.prepare) == "STEP_FAILED"
    dataset = north.dataset()
    assert dataset.state == site_pb2.LOCAL_DATASET_STATE_BROKEN
    assert [(step.name, step.exit_code) for step in dataset.steps] == [("prepare", 7)]
    set_preparation(bench, prepare)
    north.prepare()
    assert north.dataset().state == site_pb2.LOCAL_DATASET_STATE_PREPARED


def test_out_of_memory_is_told_apart(bench: Bench, north: Site) -> None:
    def script(_: FakeStep) -> int:
        raise Oom

    set_preparation(bench, script)
    north.register()
    assert code(north.prepare) == "STEP_OUT_OF_MEMORY"


def test_statistics_must_be_a_mapping_with_entries(bench: Bench, north: Site) -> None:
    def script(step: FakeStep) -> int:
        done = prepare(step)
        if step.spec.labels["housecall.step"] == "statistics":
            step.path("/statistics.yaml").write_text("")
        return done

    set_preparation(bench, script)
    north.register()
    assert code(north.prepare) == "OUTPUT_EMPTY"
    assert north.dataset().state == site_pb2.LOCAL_DATASET_STATE_BROKEN


def test_it_can_be_stopped_and_goes_on(bench: Bench, north: Site) -> None:
    def script(step: FakeStep) -> int:
        (step.path("/data") / "half").write_text("done so far")
        step.stopping.wait(20)
        return 143

    set_preparation(bench, script)
    north.register()
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(code(north.prepare)))
    thread.start()
    wait_for(lambda: bench.engine.started)
    with north.api() as api:
        api.StopPreparation(site_pb2.StopPreparationRequest(dataset_id="north/1"))
    thread.join()
    assert ended == ["STEP_STOPPED"]
    assert north.dataset().state == site_pb2.LOCAL_DATASET_STATE_REGISTERED
    set_preparation(bench, prepare)
    north.prepare()
    assert prepared(north, "half").read_text() == "done so far"


def test_a_second_caller_joins(bench: Bench, north: Site) -> None:
    go = threading.Event()

    def script(step: FakeStep) -> int:
        step.log("waiting")
        go.wait(20)
        return prepare(step)

    set_preparation(bench, script)
    north.register()
    logs: list[list[str]] = []

    def follow() -> None:
        logs.append([event.log.text for event in north.prepare() if event.HasField("log")])

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: bench.engine.started)
    go.set()
    for thread in threads:
        thread.join()
    assert len(bench.engine.started) == 3, "prepare, sanity_check, statistics: once each"
    assert all("waiting" in lines for lines in logs)


def test_prepared_data_is_used_where_it_is(north: Site) -> None:
    north.register(already_prepared=True)
    request = site_pb2.DraftOperationalRequest(dataset_id="north/1")
    north.release(north.draft("DraftOperational", request))
    dataset = north.dataset()
    assert dataset.state == site_pb2.LOCAL_DATASET_STATE_OPERATIONAL
    assert dataset.prepared_fingerprint == dataset.raw_fingerprint
    assert dataset.prepared_path == str(north.data / "data")
    assert [step.name for step in dataset.steps] == ["sanity_check", "statistics"]
    assert not (north.settings.state_dir / "datasets" / "1" / "prepared").exists()


def test_check_tells_changed_data(north: Site) -> None:
    north.register()
    north.prepare()
    request = site_pb2.CheckDatasetRequest(dataset_id="north/1", full=True)
    assert "unchanged" in north.work("CheckDataset", request)[-1].done.text
    before = north.dataset().raw_fingerprint
    (north.data / "data" / "a.txt").write_text("another")
    with pytest.raises(Refusal, match=f"expected {before}, got sha256:") as caught:
        north.work("CheckDataset", request)
    assert caught.value.code == "DATASET_CHANGED"
    operational = site_pb2.DraftOperationalRequest(dataset_id="north/1")
    assert code(lambda: north.draft("DraftOperational", operational)) == "DATASET_CHANGED"


def test_no_way_back_from_operational(north: Site) -> None:
    north.register()
    north.prepare()
    north.operational()
    assert code(north.prepare) == "DATASET_OPERATIONAL"


@pytest.mark.parametrize(
    ("data_path", "expected"),
    [
        ("/etc", "PATH_NOT_ALLOWED"),
        ("relative/path", "PATH_NOT_ALLOWED"),
        ("{data}/nothing", "DATA_MISSING"),
        ("{data}/empty", "DATA_EMPTY"),
        ("{data}/loop", "DATA_SYMLINK_LOOP"),
        ("{data}/out", "PATH_NOT_ALLOWED"),
        ("{data}/data/a.txt", "PATH_NOT_A_FOLDER"),
    ],
)
def test_paths_that_cannot_be_registered(north: Site, data_path: str, expected: str) -> None:
    (north.data / "empty").mkdir()
    (north.data / "loop").symlink_to(north.data / "loop")
    (north.data / "out").symlink_to("/etc")
    path = data_path.format(data=north.data)
    request = north.registration(data_path=path)
    assert code(lambda: north.draft("DraftDataset", request)) == expected
    with north.api() as api:
        assert not api.ListLocalDatasets(site_pb2.ListLocalDatasetsRequest()).datasets


def test_raw_data_that_changed_is_refused_before_the_first_step(bench: Bench, north: Site) -> None:
    north.register()
    (north.data / "data" / "a.txt").write_text("another")
    with pytest.raises(Refusal) as caught:
        north.prepare()
    assert caught.value.code == "DATASET_CHANGED"
    assert "raw data of dataset north/1: expected sha256:" in caught.value.message
    assert not bench.engine.started
    assert north.dataset().state == site_pb2.LOCAL_DATASET_STATE_REGISTERED


def test_raw_data_that_changes_under_the_steps_is_refused(bench: Bench, north: Site) -> None:
    def script(step: FakeStep) -> int:
        (north.data / "data" / "a.txt").write_text("another")
        return prepare(step)

    set_preparation(bench, script)
    north.register()
    assert code(north.prepare) == "DATASET_CHANGED"
    assert north.dataset().state == site_pb2.LOCAL_DATASET_STATE_REGISTERED


def test_a_broken_preparation_names_dataset_and_log(bench: Bench, north: Site) -> None:
    set_preparation(bench, lambda _: 7)
    north.register()
    with pytest.raises(Refusal) as caught:
        north.prepare()
    assert caught.value.code == "STEP_FAILED"
    assert "dataset north/1: prepare: expected exit code 0, got 7" in caught.value.message
    assert "logs/prepare.log, `housecall dataset show 1`" in caught.value.message


def test_a_link_in_place_of_prepared_data_is_not_mounted(north: Site) -> None:
    north.register(already_prepared=True)
    north.operational()
    north.release(north.associate())
    north.bench.carla.state(
        pb.AssociationDecided(association_id=1, decision=pb.DECISION_APPROVE, reason="good")
    )
    elsewhere = north.data.parent / "elsewhere"
    (north.data / "data").rename(elsewhere)
    (north.data / "data").symlink_to(elsewhere)
    (row,) = north.run(rerun=True)
    assert row.error_code == "PATH_NOT_ALLOWED"
