"""Who cancelled an execution is said by the statement, whenever the agent dies. Its step ends."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.journal import Journal
from agent.records import State
from agent.settings import Settings
from housecall import statement
from housecall.errors import Refusal
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.gated import Gate, steps_of, waiting_model
from tests.agent.process import dying_agent
from tests.agent.site import Bench, Site, wait_for
from tests.agent.test_orders import ready_with_second, wait_ended


def cancel(north: Site, local_id: int) -> None:
    with contextlib.suppress(Refusal), north.api() as api:
        api.CancelLocalExecution(site_pb2.CancelLocalExecutionRequest(id=local_id))


def releaser(north: Site, number: int) -> pb.Releaser:
    """Of the one statement about this order that the coordinator accepted."""
    (entry,) = wait_for(lambda: north.agent.journal.sent_about(f"ended:{number}"))
    wait_for(lambda: north.agent.journal.outgoing(entry.envelope_digest).state == "accepted")  # type: ignore[union-attr]
    said = statement.unverified(entry.envelope).predicate
    assert isinstance(said, pb.ExecutionEnded)
    return said.releaser


@pytest.mark.parametrize("side", ["before", "after"])
def test_an_agent_that_is_killed_at_a_cancellation(bench: Bench, tmp_path: Path, side: str) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        number = bench.order(ready_with_second(bench, north))
        (review,) = wait_for(north.reviews)
        local_id = north.agent.journal.executions(execution_id=number)[0].id
    with dying_agent(settings, tmp_path, f"{side} runs._cancelled>transaction"):
        cancel(north, local_id)
    with site.serving(bench, tmp_path, settings) as north:
        if side == "before":
            assert north.agent.journal.execution(local_id).state is State.WAITING_CONSENT
            assert [each.id for each in north.reviews()] == [review.id]
            cancel(north, local_id)
        assert wait_ended(bench, number).state == pb.EXECUTION_STATE_CANCELLED
        assert releaser(north, number).local_user.uid == os.getuid()


def test_what_the_committee_cancels_is_cancelled_at_once_or_not_at_all(
    bench: Bench, tmp_path: Path
) -> None:
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        number = bench.order(ready_with_second(bench, north))
        wait_for(north.reviews)
        local_id = north.agent.journal.executions(execution_id=number)[0].id
    with dying_agent(settings, tmp_path, "before runs._cancelled>transaction"):
        bench.carla.state(pb.ExecutionCancelled(execution_ids=[number], reason="enough"))
    with site.serving(bench, tmp_path, settings) as north:
        journal = north.agent.journal
        wait_for(lambda: journal.execution(local_id).state is State.CANCELLED)
        assert not journal.open_orders()
        assert not journal.sent_about(f"ended:{number}")


def test_the_step_of_what_was_cancelled_ends_where_the_agent_was_killed_before(
    bench: Bench, gate: Gate, settings: Settings, tmp_path: Path
) -> None:
    with site.serving(bench, tmp_path, settings) as north:
        execution = waiting_model(north, gate)
    with contextlib.closing(Journal(settings.state_dir / "journal.sqlite")) as journal:
        journal.update_execution(execution.id, state=State.CANCELLED)
        (kept,) = journal.begun_steps()
        journal.set_step(replace(kept, gpus="GPU-1"))
    with site.serving(bench, tmp_path, settings) as north:
        wait_for(lambda: not north.agent.journal.begun_steps())
        assert [each.state for each in steps_of(north, execution)] == [pb.STEP_STATE_STOPPED]
        assert not bench.engine.adopt({"housecall.step": "infer"})
        wait_for(lambda: not north.agent.gpus.holders())
