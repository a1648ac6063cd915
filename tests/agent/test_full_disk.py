"""A disk that is really full: what was refused can be asked for again, what waits goes on by itself
when there is room; nothing waits for a restart."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agent.identity
import agent.runs
import agent.server
from agent import catalog as states
from agent.records import State
from housecall.errors import Refusal
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.site import Bench, Site, wait_for
from tests.agent.test_orders import ready_with_second, wait_ended
from tests.faults.disks import Disk

PAGE = 4096
MOST_PAGES = 200
CROWD = MOST_PAGES * PAGE
"""Bytes: as a reserve, no step runs while the test takes the room of others."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk", 8, mode="0700")
    if not made.small:
        pytest.skip("no right to mount a tmpfs")
    yield made
    made.close()


@pytest.fixture
def reserve() -> int:
    return 0


@pytest.fixture
def north(
    bench: Bench, disk: Disk, reserve: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """Its state is on the small disk."""
    monkeypatch.setattr(agent.runs, "RETRY_S", 0.05)
    monkeypatch.setattr(agent.server, "RECONCILE_S", 0.2)
    monkeypatch.setattr(agent.identity, "CHECK_EVERY_S", 0.05)
    state = disk.path / "state"
    settings = site.enrolled(bench, tmp_path, state_dir=state, disk_reserve_bytes=reserve)
    with site.serving(bench, tmp_path, settings) as made:
        yield made
        disk.free()


def code(act: Callable[[], object]) -> str:
    """Of its refusal, "" where there is none."""
    try:
        act()
    except Refusal as refusal:
        return refusal.code
    return ""


def crowded(disk: Disk, act: Callable[[], object], whole: Callable[[], bool]) -> int:
    """Tries on a full disk, then with room for one page more each time, so that every write of
    it fails once. What was refused is `whole` again by itself. How often it was refused."""
    for pages in range(MOST_PAGES):
        disk.fill(pages * PAGE)
        said = code(act)
        disk.free()
        if not said:
            return pages
        assert said == "DISK_FULL"
        wait_for(whole)
    raise AssertionError("it was never done")


@pytest.mark.parametrize("reserve", [CROWD])
def test_an_approval_is_done_or_still_asked_for(bench: Bench, disk: Disk, north: Site) -> None:
    number = bench.order(ready_with_second(bench, north))
    for kind in (site_pb2.REVIEW_KIND_RUN, site_pb2.REVIEW_KIND_RELEASE):
        (review,) = wait_for(lambda k=kind: [r for r in north.reviews() if r.kind == k])  # type: ignore[misc]

        def approve(asked: site_pb2.Review = review) -> None:
            request = site_pb2.ApproveReviewRequest(id=asked.id, digest=asked.digest)
            with north.api() as api:
                api.ApproveReview(request)

        def still_asked(asked: site_pb2.Review = review) -> bool:
            return [each.id for each in north.agent.journal.reviews()] == [asked.id]

        assert crowded(disk, approve, still_asked)
    assert wait_ended(bench, number).state == pb.EXECUTION_STATE_SUCCEEDED


def test_a_dataset_is_what_was_released(bench: Bench, disk: Disk, north: Site) -> None:
    """The catalog is no part of the journal's transaction."""
    drafts = [north.draft("DraftDataset", north.registration())]
    catalog = north.agent.catalog
    assert crowded(disk, lambda: north.release(drafts[0]), lambda: not catalog.all())
    north.prepare()
    request = site_pb2.DraftOperationalRequest(dataset_id="north/1")
    drafts.append(north.draft("DraftOperational", request))
    prepared = states.PREPARED
    assert crowded(
        disk, lambda: north.release(drafts[1]), lambda: catalog.get("1").state == prepared
    )
    assert catalog.get("1").state == states.OPERATIONAL


def test_a_preparation_that_found_no_room_is_not_broken(
    bench: Bench, disk: Disk, north: Site
) -> None:
    north.register()
    for pages in range(0, 40, 3):
        disk.fill(pages * PAGE)
        with contextlib.suppress(Refusal):
            north.prepare()
        assert north.agent.catalog.get("1").state != states.BROKEN, f"with {pages} pages free"
        disk.free()
        wait_for(lambda: north.agent.worker.counts() == (0, 0))
    wait_for(lambda: north.agent.catalog.get("1").state != states.PREPARING)
    north.prepare()
    assert north.agent.catalog.get("1").state == states.PREPARED


def test_orders_go_on_by_themselves(bench: Bench, disk: Disk, north: Site) -> None:
    second = ready_with_second(bench, north)
    disk.fill(0)
    number = bench.order(second)
    wait_for(lambda: "DISK_FULL" in north.agent.link.state.problem)
    disk.free()
    (review,) = wait_for(north.reviews)
    request = site_pb2.ApproveReviewRequest(id=review.id, digest=review.digest)
    with north.api() as api:
        api.ApproveReview(request)
    journal = north.agent.journal
    (local,) = journal.executions(execution_id=number)
    wait_for(lambda: journal.execution(local.id).state is State.WAITING_RELEASE)


def test_a_renewal_that_found_no_room_is_tried_again(
    disk: Disk, north: Site, caplog: pytest.LogCaptureFixture
) -> None:
    uplink = north.agent.uplink
    first = uplink.identity.certificate.serial_number
    disk.fill(0)

    def put_off() -> bool:
        uplink.skew_s = -25 * 86400.0  # by the coordinator's clock it is due
        found = [each for each in caplog.records if each.message == "renewal failed"]
        return any(getattr(each, "code", "") == "DISK_FULL" for each in found)

    def renewed() -> bool:
        uplink.skew_s = -25 * 86400.0
        return uplink.identity.certificate.serial_number != first

    wait_for(put_off)
    disk.free()
    wait_for(renewed)
