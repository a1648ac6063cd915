"""What a full disk cuts off between two things that belong together: all of it happens or nothing
does, and it goes on without a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import catalog as states
from agent.disk import disk_full
from agent.journal import Journal
from agent.records import State
from agent.release import local_user
from housecall import statement
from housecall.errors import Refusal
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.site import Bench, Site, infer, wait_for
from tests.agent.test_orders import policy, ready_with_second, wait_ended


def full_once(
    journal: Journal, method: str, when: Callable[..., bool] = lambda *_, **__: True
) -> threading.Event:
    """The disk has no room the first time that `method` is called so; set from then on."""
    happened, write = threading.Event(), getattr(journal, method)

    def written(*values: object, **changes: object) -> object:
        if when(*values, **changes) and not happened.is_set():
            happened.set()
            raise disk_full()
        return write(*values, **changes)

    setattr(journal, method, written)
    return happened


class Held:
    """A model that runs until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, step: FakeStep) -> int:
        self.begun.set()
        while not (self.go.wait(0.01) or step.stopping.is_set()):
            pass
        return 143 if step.stopping.is_set() else infer(step)


def test_a_result_that_was_refused_is_followed_by_another_end(bench: Bench, tmp_path: Path) -> None:
    model = Held()
    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path))
    with site.serving(bench, tmp_path, settings) as north:
        number = bench.order(ready_with_second(bench, north, model))
        assert model.begun.wait(site.SECONDS)
        withdrawn = pb.AssociationWithdrawn(association_id=2, reason="a mistake in it")
        bench.mona.state(withdrawn)
        full = full_once(north.agent.journal, "reopen_order")
        model.go.set()
        ended = wait_ended(bench, number)
        assert full.is_set()
        assert (ended.state, ended.reason) == (pb.EXECUTION_STATE_FAILED, "NOT_APPROVED")
        wait_for(lambda: not north.agent.journal.waiting())
        assert not north.agent.journal.open_orders()


def test_an_end_that_was_refused_is_said_once_more_and_not_for_ever(
    bench: Bench, north: Site
) -> None:
    number = bench.order(ready_with_second(bench, north))
    (review,) = wait_for(north.reviews)
    agent = north.agent
    agent.link.close()
    wait_for(lambda: not agent.link.state.connected)
    agent.releases.receipt_seconds = 0.0
    with north.api() as api:
        api.RefuseReview(site_pb2.RefuseReviewRequest(id=review.id))
    said = []
    for _ in range(2):
        (entry,) = agent.journal.waiting()
        said.append(entry.envelope_digest)
        agent.releases.refuse(entry.envelope_digest, ("invalid", "REASON_INVALID", "no such"))
    assert not agent.journal.waiting()
    assert len(set(said)) == 2
    order = agent.journal.order(number)
    assert order is not None
    assert order.outcome == said[1]


def test_who_cancelled_has_not_released_the_failure_that_follows(bench: Bench, north: Site) -> None:
    number = bench.order(ready_with_second(bench, north))
    wait_for(north.reviews)
    agent = north.agent
    agent.link.close()
    wait_for(lambda: not agent.link.state.connected)
    (local,) = agent.journal.executions(execution_id=number)
    agent.orders.cancel(local.id, local_user(0))
    releasers = []
    for _ in range(2):
        (entry,) = agent.journal.waiting()
        said = statement.unverified(entry.envelope).predicate
        assert isinstance(said, pb.ExecutionEnded)
        releasers.append(said.releaser)
        agent.releases.refuse(entry.envelope_digest, ("invalid", "REASON_INVALID", "no such"))
    assert releasers[0] == local_user(0)
    assert releasers[1].policy.rule == "failures"


def test_a_cancelled_order_stops_though_its_end_found_no_room(bench: Bench, tmp_path: Path) -> None:
    model = Held()
    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path))
    with site.serving(bench, tmp_path, settings) as north:
        number = bench.order(ready_with_second(bench, north, model))
        assert model.begun.wait(site.SECONDS)
        journal = north.agent.journal

        def ends(_number: int, **changes: object) -> bool:
            return changes.get("state") is State.CANCELLED

        full = full_once(journal, "update_execution", ends)
        bench.carla.state(pb.ExecutionCancelled(execution_ids=[number], reason="wrong model"))
        (local,) = journal.executions(execution_id=number)
        wait_for(lambda: journal.execution(local.id).state is State.CANCELLED)
        assert full.is_set()
        wait_for(lambda: not bench.engine.adopt({"housecall.step": "infer"}))
        assert not journal.open_orders()


def test_a_registration_that_found_no_room_leaves_no_dataset(north: Site) -> None:
    draft = north.draft("DraftDataset", north.registration())
    full_once(north.agent.journal, "add_outgoing")
    with pytest.raises(Refusal) as caught:
        north.release(draft)
    assert caught.value.code == "DISK_FULL"
    assert not north.agent.catalog.all()
    assert north.release(draft)[0].id == "north/1"


def test_a_dataset_is_not_operational_without_its_statement(north: Site) -> None:
    north.register()
    north.prepare()
    request = site_pb2.DraftOperationalRequest(dataset_id="north/1")
    draft = north.draft("DraftOperational", request)
    full_once(north.agent.journal, "add_outgoing")
    with pytest.raises(Refusal) as caught:
        north.release(draft)
    assert caught.value.code == "DISK_FULL"
    assert north.agent.catalog.get("north/1").state == states.PREPARED
    assert north.release(draft)[0].HasField("receipt")
    assert north.agent.catalog.get("north/1").state == states.OPERATIONAL


def test_what_could_not_be_put_right_at_once_is_later(north: Site) -> None:
    north.register()
    north.prepare()
    north.agent.catalog.update(1, state=states.OPERATIONAL)
    north.agent._reconcile()
    assert north.agent.catalog.get("north/1").state == states.PREPARED
