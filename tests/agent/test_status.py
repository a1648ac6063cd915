"""What a site's status says of its work: what runs, what waits for what, since when, and what to do
about it; from a real agent, link and journal."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import gpus
from agent.catalog import PREPARING
from agent.doctor.finding import Level, Verdict, warn
from agent.doctor.home import agent as doctors_word
from agent.doctor.scene import Scene
from agent.gpus import Gpu
from agent.local.messages import timestamp
from agent.progress import progress_of
from housecall.v1 import fleet_pb2, registry_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.site import SECONDS, Bench, Site, infer, wait_for
from tests.agent.test_link import registered_offline
from tests.coordinator.world import MODEL_CONFIG, register_container, sha

DAY = 86400.0


def status(north: Site) -> site_pb2.GetStatusResponse:
    with north.api() as api:
        return api.GetStatus(site_pb2.GetStatusRequest(), timeout=SECONDS)


def work(north: Site, reason: fleet_pb2.WaitReason.ValueType) -> list[site_pb2.Work]:
    return [each for each in status(north).work if each.waits_for == reason]


def consent_to_the_first(north: Site) -> None:
    def asked() -> list[site_pb2.Review]:
        return [each for each in north.reviews() if each.kind == site_pb2.REVIEW_KIND_RUN]

    review = wait_for(asked)[0]
    with north.api() as api:
        request = site_pb2.ApproveReviewRequest(id=review.id, digest=review.digest)
        api.ApproveReview(request, timeout=SECONDS)


def told(north: Site) -> set[fleet_pb2.WaitReason.ValueType]:
    """What a Hello says that orders wait for."""
    return {progress_of(each).waits_for for each in north.agent.orders.doing()}


class Slow:
    """A model that prints a line and runs until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()

    def __call__(self, step: FakeStep) -> int:
        step.log("begun")
        self.begun.set()
        self.go.wait(SECONDS)
        return infer(step)


@contextlib.contextmanager
def running(north: Site) -> Iterator[tuple[Slow, int]]:
    """A slow model that the committee ordered and a person consented to."""
    slow = Slow()
    model = north.bench.add_model("slow", slow)
    north.bench.approve_model(model)
    number = north.bench.order(model)
    consent_to_the_first(north)
    assert slow.begun.wait(SECONDS)
    try:
        yield slow, number
    finally:
        slow.go.set()


def test_an_idle_site(north: Site) -> None:
    before = time.time()
    found = status(north)
    assert found.connected
    assert not found.HasField("next_try_at")
    assert found.link_since.ToDatetime(UTC).timestamp() <= before
    assert abs(found.clock_skew_seconds) < 5
    assert (found.engine_problem, list(found.work), found.outbox) == ("", [], 0)
    assert not found.HasField("outbox_since")
    assert found.disk_reserve_bytes == north.settings.disk_reserve_bytes


def test_an_order_waits_for_consent_then_runs_then_waits_for_release(north: Site) -> None:
    north.ready()
    before = datetime.now(UTC)
    with running(north) as (slow, number):
        wait_for(lambda: status(north).work[0].HasField("heard_at"))
        (row,) = status(north).work
        assert (row.execution_id, row.step, row.dataset_id) == (number, "infer", "north/1")
        assert row.waits_for == fleet_pb2.WAIT_REASON_UNSPECIFIED
        assert before <= row.since.ToDatetime(UTC) <= row.heard_at.ToDatetime(UTC)
        slow.go.set()
        wait_for(lambda: work(north, fleet_pb2.WAIT_REASON_RELEASE))
    (row,) = status(north).work
    (review,) = north.reviews()
    assert row.next_step == f"housecall review show {review.id}"
    assert row.since == review.since


def test_consent_that_is_waited_for(north: Site) -> None:
    north.ready()
    north.bench.order(north.bench.models[0])
    (row,) = wait_for(lambda: work(north, fleet_pb2.WAIT_REASON_CONSENT))
    (review,) = north.reviews()
    assert row.next_step == f"housecall review show {review.id}"
    assert row.since == review.since


def test_a_new_stream_changes_nothing_of_since_when(north: Site) -> None:
    north.ready()
    number = north.bench.order(north.bench.models[0])
    wait_for(lambda: work(north, fleet_pb2.WAIT_REASON_CONSENT))
    carla, request = north.bench.carla, registry_pb2.GetExecutionRequest(id=number)

    def seen() -> registry_pb2.Execution:
        return carla.registry.GetExecution(request, timeout=SECONDS).execution

    wait_for(lambda: seen().state == pb.EXECUTION_STATE_WAITING_CONSENT)
    before, connected_at = seen().updated_at, north.agent.link.state.connected_at
    (kept,) = north.agent.orders.doing()
    north.agent.journal.update_execution(kept.id, updated_at=kept.updated_at - 9 * DAY)
    north.agent.link.reconnect()
    wait_for(lambda: north.agent.link.state.connected_at > connected_at)
    passed = before.ToDatetime(UTC) - seen().updated_at.ToDatetime(UTC)
    assert passed.total_seconds() == pytest.approx(9 * DAY, abs=SECONDS)


def test_a_slot_that_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path, slots=1)
    with site.serving(bench, tmp_path, settings) as north:
        north.ready()
        with running(north) as (slow, _):
            north.register(name="more")
            before = time.time()
            thread = threading.Thread(target=north.prepare, args=("north/2",))
            thread.start()
            (row,) = wait_for(lambda: work(north, fleet_pb2.WAIT_REASON_SLOT))
            assert (row.dataset_id, row.local_execution_id) == ("north/2", 0)
            assert before <= row.since.ToDatetime(UTC).timestamp() <= time.time()
            assert status(north).running == 1
            slow.go.set()
        thread.join(SECONDS)


def test_an_engine_and_a_disk_that_are_waited_for(north: Site) -> None:
    north.ready()
    north.bench.order(north.bench.models[0])
    consent_to_the_first(north)
    wait_for(lambda: work(north, fleet_pb2.WAIT_REASON_RELEASE))
    runner = north.agent.runner
    runner.cage = dataclasses.replace(runner.cage, disk_reserve=2**60)
    second = north.bench.add_model("second")
    north.bench.approve_model(second)
    north.bench.order(second)
    consent_to_the_first(north)
    (row,) = wait_for(lambda: work(north, fleet_pb2.WAIT_REASON_DISK))
    assert row.next_step.startswith("free space")
    wait_for(lambda: fleet_pb2.WAIT_REASON_DISK in told(north))
    third = north.bench.add_model("third")
    north.bench.approve_model(third)
    north.bench.order(third)
    wait_for(lambda: [each for each in north.reviews() if each.kind == site_pb2.REVIEW_KIND_RUN])
    north.bench.engine.unreachable = True
    consent_to_the_first(north)
    row = wait_for(lambda: work(north, fleet_pb2.WAIT_REASON_ENGINE))[0]
    assert row.next_step == "housecall-agent doctor --check engine"
    wait_for(lambda: fleet_pb2.WAIT_REASON_ENGINE in told(north))
    assert "doctor --check engine" in status(north).engine_problem
    north.bench.engine.unreachable = False


def test_a_step_that_runs_while_the_engine_is_away(north: Site) -> None:
    north.ready()
    with running(north):
        north.bench.engine.unreachable = True
        (row,) = work(north, fleet_pb2.WAIT_REASON_ENGINE)
        assert (row.step, row.HasField("since")) == ("infer", False)
        assert row.next_step == "housecall-agent doctor --check engine"
        north.bench.engine.unreachable = False
        (row,) = work(north, fleet_pb2.WAIT_REASON_UNSPECIFIED)
        assert (row.step, row.HasField("since")) == ("infer", True)


def test_a_preparation_that_waits_for_the_engine(north: Site) -> None:
    north.register()
    north.agent.catalog.update(1, state=PREPARING)  # as an earlier agent left it
    north.bench.engine.unreachable = True
    thread = threading.Thread(target=north.prepare)
    thread.start()
    (row,) = wait_for(lambda: work(north, fleet_pb2.WAIT_REASON_ENGINE))
    assert (row.dataset_id, row.step) == ("north/1", "")
    north.bench.engine.unreachable = False
    thread.join(SECONDS)
    assert not status(north).work


GPU_MODEL = MODEL_CONFIG.replace("  infer:\n", "  infer:\n    run_args: {gpus: 2}\n")


def test_gpus_that_are_waited_for(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = tuple(Gpu(name, "Example", 2**34, False) for name in ("a", "b"))
    monkeypatch.setattr(gpus, "discover", lambda: two)
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        north.ready()
        north.agent.gpus.hold("dataset:1", ("b",))
        hungry = Slow()
        bench.engine.add_image(sha("image of hungry"), hungry)
        role = pb.CONTAINER_ROLE_MODEL
        pin = register_container(bench.mona, "hungry", role, GPU_MODEL)
        said = pb.ModelRegistered(name="hungry", container=pin)
        model = pb.Pin(id=int(bench.mona.state(said).id), digest=pin.digest)
        bench.approve_model(model)
        bench.order(model)
        consent_to_the_first(north)
        (row,) = wait_for(lambda: work(north, fleet_pb2.WAIT_REASON_GPU))
        (since,) = north.agent.gpus.queued().values()
        assert row.since == timestamp(since)
        free, taken = status(north).gpus
        assert (free.uuid, free.dataset_id, taken.dataset_id) == ("a", "", "north/1")
        north.agent.gpus.release("dataset:1")
        assert hungry.begun.wait(SECONDS)
        assert [each.local_execution_id for each in status(north).gpus] == [
            row.local_execution_id
        ] * 2
        hungry.go.set()


def test_a_statement_waits_for_its_receipt_while_the_link_is_down(
    bench: Bench, tmp_path: Path
) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        north.agent.link.close()
        wait_for(lambda: not north.agent.link.state.connected)
        before = time.time()
        registered_offline(north.agent, settings, tmp_path)
        found = status(north)
        (row,) = found.work
        assert (row.waits_for, row.step) == (
            fleet_pb2.WAIT_REASON_RECEIPT,
            "AssociationWithdrawn",
        )
        assert row.next_step == "housecall-agent doctor"
        assert found.outbox_since == row.since
        assert row.since.ToDatetime(UTC).timestamp() >= before
        assert found.link_since.ToDatetime(UTC).timestamp() <= time.time()


def test_a_link_that_is_down_says_when_it_tries_again(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        state = north.agent.link.state
        state.disconnected()
        assert state.waits(30.0) == 30.0
        found = status(north)
        assert 20 < found.next_try_at.ToDatetime(UTC).timestamp() - time.time() <= 30
        state.welcomed("")
        assert not status(north).HasField("next_try_at")


def looked_at(north: Site, tmp_path: Path) -> Verdict:
    config = tmp_path / "agent.toml"
    config.write_text(
        f'state_dir = "{north.settings.state_dir}"\nsocket = "{north.settings.socket}"'
    )
    return doctors_word(Scene(config))


def test_the_doctor_finds_the_agent_that_runs(north: Site, tmp_path: Path) -> None:
    found = looked_at(north, tmp_path)
    assert (found.level, "connected since" in found.found) == (Level.OK, True)


def test_the_doctor_says_what_is_wrong_with_an_agent_that_is_connected(
    north: Site, tmp_path: Path
) -> None:
    north.agent.link.state.welcomed("clock: 400 s [CLOCK_SKEW]")
    north.bench.engine.unreachable = True
    found = looked_at(north, tmp_path)
    assert found.level is Level.WARNING
    assert "it runs, and has a problem: clock: 400 s [CLOCK_SKEW]; has no engine" in found.found
    assert "the check of the engine says why" in found.fix


def test_the_doctor_says_that_the_link_ended_for_good(north: Site, tmp_path: Path) -> None:
    state = north.agent.link.state
    state.disconnected()
    state.problem, state.ended = "another history [LEDGER_REWRITTEN]", True
    found = looked_at(north, tmp_path)
    said = "it runs, and has ended its link for good: another history [LEDGER_REWRITTEN]"
    assert found == warn(said, "tell the operator and the other sites")


def test_the_doctor_compares_the_agents_gpus_with_the_drivers(
    north: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = (Gpu("a", "Example", 2**34, False),)
    monkeypatch.setattr(gpus, "discover", lambda: there)
    found = looked_at(north, tmp_path)
    assert found == warn("it runs, and knows 0 GPUs, where the driver has 1", "restart the agent")
