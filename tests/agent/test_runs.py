"""Executions: cache by content, failing models, partial results, clocks, cancelling."""

from __future__ import annotations

import contextlib
import shutil
import threading
from contextlib import closing
from pathlib import Path

import grpc
import pytest
import yaml

from agent.records import State
from agent.settings import Settings
from housecall.errors import Refusal
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.gated import Gate, succeeded, waiting_model
from tests.agent.site import Bench, Site, infer, wait_for
from tests.agent.test_preparation import code
from tests.coordinator.world import sha
from tests.faults.disks import Disk


def test_a_changed_dataset_is_refused_before_the_model_runs(bench: Bench, north: Site) -> None:
    north.ready()
    second = bench.add_model("second")
    bench.approve_model(second)
    expected = north.dataset().prepared_fingerprint
    (Path(north.dataset().prepared_path) / "data" / "a.txt").write_text("another")
    steps = len(bench.engine.started)
    (row,) = north.run(model_ids=[2])
    assert row.error_code == "DATASET_CHANGED"
    assert expected in row.error
    assert len(bench.engine.started) == steps


def test_the_cache_goes_by_content(bench: Bench, north: Site) -> None:
    north.ready()
    steps = len(bench.engine.started)
    (row,) = north.run()
    assert row.from_cache
    assert len(bench.engine.started) == steps
    (row,) = north.run(rerun=True)
    assert not row.from_cache
    assert len(bench.engine.started) == steps + 2
    second = bench.add_model("second")
    bench.approve_model(second)
    assert [row.from_cache for row in north.run()] == [True, False]
    assert [row.from_cache for row in north.run()] == [True, True]


def test_one_failing_model_stops_no_other(bench: Bench, north: Site) -> None:
    north.ready()
    for name, script in (("failing", lambda _: 9), ("good", infer)):
        bench.approve_model(bench.add_model(name, script))
    rows = north.run()
    assert [(row.result, row.error_code) for row in rows] == [
        ("b1m1d1", ""),
        ("", "STEP_FAILED"),
        ("b1m3d1", ""),
    ]
    assert "expected exit code 0, got 9" in rows[1].error
    assert not north.run(model_ids=[2])[0].from_cache, "a failure is not remembered"


def test_partial_results_need_leave(bench: Bench, north: Site) -> None:
    north.ready()

    def half(step: FakeStep) -> int:
        (step.path("/out") / "a.txt").write_text("1")
        return 1

    bench.approve_model(bench.add_model("half", half))
    assert north.run(model_ids=[2])[0].error_code == "STEP_FAILED"
    (row,) = north.run(model_ids=[2], ignore_model_errors=True)
    assert (row.result, row.partial) == ("b1m2d1", True)
    assert not north.run(model_ids=[2])[0].from_cache, "partial only with leave"
    request = site_pb2.DraftResultRequest(name="b1m2d1")
    assert site.payload(north.draft("DraftResult", request)).partial


def test_partial_results_only_where_the_benchmark_allows_them(tmp_path: Path) -> None:
    with site.bench(tmp_path / "coordinator") as bench:
        settings = site.enrolled(bench, tmp_path)
        with site.serving(bench, tmp_path, settings) as north:
            north.ready()
            selection = site_pb2.RunSelection(
                benchmark_id=1, dataset_id="north/1", ignore_model_errors=True
            )
            plan = site_pb2.PlanRunRequest(selection=selection)

            def planned() -> None:
                with north.api() as api:
                    api.PlanRun(plan)

            assert code(planned) == "PARTIAL_NOT_ALLOWED"
            steps = len(bench.engine.started)
            refused = code(lambda: north.run(rerun=True, ignore_model_errors=True))
            assert refused == "PARTIAL_NOT_ALLOWED"
            assert len(bench.engine.started) == steps


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"wall_limit_s": 1}, "STEP_TIMEOUT"), ({"silence_limit_s": 1}, "STEP_SILENT")],
)
def test_the_two_clocks(
    bench: Bench, tmp_path: Path, limits: dict[str, object], expected: str
) -> None:
    def hang(step: FakeStep) -> int:
        step.stopping.wait(20)
        return 0

    with site.serving(
        bench, tmp_path, site.enrolled(bench, tmp_path, name="north", **limits)
    ) as north:
        north.ready()
        bench.approve_model(bench.add_model("hanging", hang))
        (row,) = north.run(model_ids=[2])
        assert row.error_code == expected


def test_metrics_must_fit_the_schema(bench: Bench, north: Site) -> None:
    def wrong(step: FakeStep) -> int:
        step.path("/out/results.yaml").write_text(yaml.safe_dump({"patient": "a.txt"}))
        return 0

    north.ready()
    bench.engine.add_image(sha("image of evaluator"), wrong)
    (row,) = north.run(rerun=True)
    assert row.error_code == "OUTPUT_INVALID"
    assert "a.txt" not in row.error


def test_a_full_disk_starts_nothing(bench: Bench, tmp_path: Path) -> None:
    free = shutil.disk_usage("/tmp").free
    settings = site.enrolled(bench, tmp_path, disk_reserve_bytes=free * 2)
    with site.serving(bench, tmp_path, settings) as north:
        north.register()
        assert code(north.prepare) == "DISK_FULL"


def test_not_before_approval(north: Site) -> None:
    north.register()
    north.prepare()
    north.operational()
    assert code(north.run) == "NOT_APPROVED"


def test_cancelling_stops_the_container(bench: Bench, north: Site) -> None:
    def hang(step: FakeStep) -> int:
        step.log("working")
        step.stopping.wait(20)
        return 143

    north.ready()
    bench.approve_model(bench.add_model("hanging", hang))
    rows: list[site_pb2.RunRow] = []
    thread = threading.Thread(target=lambda: rows.extend(north.run(model_ids=[2])))
    thread.start()
    running = pb.EXECUTION_STATE_RUNNING
    with north.api() as api:
        found = wait_for(
            lambda: [
                each
                for each in api.ListLocalExecutions(
                    site_pb2.ListLocalExecutionsRequest(state=running)
                ).executions
                if each.step == "infer"
            ]
        )
        api.CancelLocalExecution(site_pb2.CancelLocalExecutionRequest(id=found[0].id))
        thread.join()
        assert rows[0].error_code in ("STEP_STOPPED", "CANCELLED")
        request = site_pb2.GetLocalExecutionRequest(id=found[0].id)
        shown = api.GetLocalExecution(request).execution
        assert shown.state == pb.EXECUTION_STATE_CANCELLED
        assert "working" in shown.log_tail
    wait_for(lambda: not bench.engine.adopt({"housecall.step": "infer"}))


def cut_off(north: Site) -> None:
    with contextlib.suppress(Refusal):
        north.run()


def test_known_things_run_without_the_coordinator(bench: Bench, north: Site) -> None:
    north.ready()
    north.run()
    north.agent.link.close()
    north.agent.uplink.channel.close()
    north.agent.uplink._channel = grpc.insecure_channel("127.0.0.1:1")
    (row,) = north.run(rerun=True)
    assert row.result == "b1m1d1"


def test_a_plan_says_what_would_run(bench: Bench, north: Site) -> None:
    north.ready()
    second = bench.add_model("second")
    bench.approve_model(second)
    selection = site_pb2.RunSelection(benchmark_id=1, dataset_id="north/1")
    with north.api() as api:
        plan = api.PlanRun(site_pb2.PlanRunRequest(selection=selection))
    assert [(item.model_id, item.from_cache, item.image_present) for item in plan.items] == [
        (1, True, True),
        (2, False, True),
        (0, False, True),
    ]
    assert plan.items[-1].model_name == "evaluator"
    assert plan.prepared_bytes > 0


def test_a_full_disk_stops_a_step(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.watch.DISK_POLL_S", 0.0)
    disk, reserve = Disk(tmp_path / "disk", 64), 16 * 2**20
    assert disk.small, "mounting a tmpfs needs root"

    def greedy(step: FakeStep) -> int:
        disk.fill(reserve // 4)
        return int(not step.stopping.wait(20))

    bench.engine.add_image(sha("image of preparation"), greedy)
    state = disk.path / "state"
    settings = site.enrolled(bench, tmp_path, state_dir=state, disk_reserve_bytes=reserve)
    with closing(disk), site.serving(bench, tmp_path, settings) as north:
        north.register()
        assert code(north.prepare) == "DISK_FULL"
        assert north.dataset().state == site_pb2.LOCAL_DATASET_STATE_REGISTERED


def test_an_unknown_benchmark_comes_before_the_approval(north: Site) -> None:
    north.register()
    selection = site_pb2.RunSelection(benchmark_id=99, dataset_id="north/1")

    def planned() -> None:
        with north.api() as api:
            api.PlanRun(site_pb2.PlanRunRequest(selection=selection))

    assert code(planned) == "BENCHMARK_NOT_FOUND"


def test_one_that_nobody_runs_joins_the_run_of_its_content(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    """As after a start of the agent, when another one of it is ordered before its turn."""
    with site.serving(bench, tmp_path, settings) as north:
        runs, journal = north.agent.runs, north.agent.journal
        recipe = north.agent.executor.recipe(1, 2, "north/1")
        adrift = runs._add(recipe, "BENCHMARK", ignore_errors=False)
        ordered = waiting_model(north, gate)
        assert ordered.source_id == ordered.id
        assert runs._resume(adrift)
        assert journal.execution(adrift.id).source_id == ordered.id
        runs.cancel(adrift.id, "not needed")
        gate.opened.set()
        wait_for(lambda: succeeded(north, ordered))
        assert journal.execution(adrift.id).state is State.CANCELLED
    assert len(gate.steps) == 1
