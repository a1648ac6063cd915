"""Orders: consent by policy and by people, and exactly one outcome each."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.local.messages import sent
from agent.records import Execution, Outgoing, State
from agent.release import by_policy, local_user
from agent.results import name_of
from housecall.errors import Kind, Refusal
from housecall.rpc import refusals
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.site import Bench, Site, wait_for


def state_there(bench: Bench, execution_id: int) -> reg.Execution:
    request = reg.GetExecutionRequest(id=execution_id)
    return bench.carla.registry.GetExecution(request).execution


def wait_ended(bench: Bench, execution_id: int) -> reg.Execution:
    ended = (
        pb.EXECUTION_STATE_SUCCEEDED,
        pb.EXECUTION_STATE_FAILED,
        pb.EXECUTION_STATE_REFUSED,
        pb.EXECUTION_STATE_CANCELLED,
    )
    wait_for(lambda: state_there(bench, execution_id).state in ended)
    return state_there(bench, execution_id)


def policy(path: Path, **rule: Any) -> Path:
    file = path / "policy.yaml"
    values = {"name": "trusted", "benchmark": 1, "run": "allow", "release": "allow"} | rule
    file.write_text(yaml.safe_dump({"rules": [values]}))
    return file


def ready_with_second(bench: Bench, north: Site, script: Any = site.infer) -> pb.Pin:
    north.ready()
    second = bench.add_model("second", script)
    bench.approve_model(second)
    return second


def test_a_policy_runs_and_releases(bench: Bench, tmp_path: Path) -> None:
    file = policy(tmp_path, owners=[bench.mona.name])
    settings = site.enrolled(bench, tmp_path, policy_file=file)
    with site.serving(bench, tmp_path, settings) as north:
        number = bench.order(ready_with_second(bench, north))
        assert wait_ended(bench, number).state == pb.EXECUTION_STATE_SUCCEEDED
        found = bench.carla.registry.GetResult(reg.GetResultRequest(name="north/b1m2d1")).result
        assert found.statement.execution_id == number
        assert found.statement.releaser.policy.rule == "trusted"
        assert found.statement.releaser.policy.digest == north.agent.policy.current().digest


def test_without_a_rule_a_person_is_asked_twice(bench: Bench, north: Site) -> None:
    number = bench.order(ready_with_second(bench, north))
    wait_for(north.reviews)
    (run,) = north.reviews()
    assert run.kind == site_pb2.REVIEW_KIND_RUN
    assert (run.model_name, run.model_owner) == ("second", bench.mona.name)
    assert run.requested_by == bench.carla.name
    wait_for(lambda: state_there(bench, number).state == pb.EXECUTION_STATE_WAITING_CONSENT)
    with north.api() as api, pytest.raises(Refusal) as caught, refusals("agent"):
        api.ApproveReview(site_pb2.ApproveReviewRequest(id=run.id, digest="sha256:other"))
    assert caught.value.code == "REVIEW_DIGEST_DIFFERS"
    with north.api() as api:
        api.ApproveReview(site_pb2.ApproveReviewRequest(id=run.id, digest=run.digest))
        wait_for(lambda: [r for r in north.reviews() if r.kind == site_pb2.REVIEW_KIND_RELEASE])
        (release,) = north.reviews()
        assert b"ResultSubmitted" in release.statement
        response = api.ApproveReview(
            site_pb2.ApproveReviewRequest(id=release.id, digest=release.digest)
        )
    assert response.sent.HasField("receipt")
    assert wait_ended(bench, number).state == pb.EXECUTION_STATE_SUCCEEDED
    assert not north.reviews()


@pytest.mark.parametrize("approve_run", [False, True])
def test_a_person_may_refuse(bench: Bench, north: Site, approve_run: bool) -> None:
    number = bench.order(ready_with_second(bench, north))
    kind = site_pb2.REVIEW_KIND_RUN
    with north.api() as api:
        if approve_run:
            (review,) = wait_for(north.reviews)
            api.ApproveReview(site_pb2.ApproveReviewRequest(id=review.id, digest=review.digest))
            kind = site_pb2.REVIEW_KIND_RELEASE
        review = wait_for(lambda: [r for r in north.reviews() if r.kind == kind])[0]
        sent = api.RefuseReview(site_pb2.RefuseReviewRequest(id=review.id)).sent
    assert sent.kind == "ExecutionEnded"
    ended = wait_ended(bench, number)
    assert ended.state == pb.EXECUTION_STATE_REFUSED
    assert ended.reason == ("RELEASE_REFUSED" if approve_run else "CONSENT_REFUSED")


@pytest.mark.parametrize("approve_run", [False, True])
def test_a_no_that_comes_right_after_a_yes_is_too_late(
    bench: Bench, north: Site, monkeypatch: pytest.MonkeyPatch, approve_run: bool
) -> None:
    number, agent = bench.order(ready_with_second(bench, north)), north.agent
    (review,) = wait_for(agent.journal.reviews)
    if approve_run:
        agent.reviews.approve(review.id, agent.reviews.get(review.id, 0).digest, 0)
        (review,) = wait_for(agent.journal.reviews)
    outcomes, digest = agent.orders.outcomes, agent.reviews.get(review.id, 0).digest
    refuse = outcomes.refuse

    def late(*values: Any, **named: Any) -> bool:
        agent.reviews.approve(review.id, digest, 0)
        return refuse(*values, **named)

    monkeypatch.setattr(outcomes, "refuse", late)
    with pytest.raises(Refusal) as caught, north.api() as api:
        api.RefuseReview(site_pb2.RefuseReviewRequest(id=review.id))
    assert caught.value.code == "REVIEW_DECIDED"
    assert not agent.journal.sent_about(f"ended:{number}")
    if not approve_run:
        (review,) = wait_for(agent.journal.reviews)
        assert review.kind == "RELEASE"
        agent.reviews.approve(review.id, agent.reviews.get(review.id, 0).digest, 0)
    assert wait_ended(bench, number).state == pb.EXECUTION_STATE_SUCCEEDED


def test_a_no_in_the_midst_of_a_yes_is_too_late(
    bench: Bench, north: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, agent = bench.order(ready_with_second(bench, north)), north.agent
    (review,) = wait_for(agent.journal.reviews)
    (local,) = agent.journal.executions(execution_id=number)
    recipe, cached, codes = agent.orders.recipe(local), agent.runs.cached, []

    def refuse() -> None:
        with pytest.raises(Refusal) as caught:
            agent.reviews.refuse(review.id, 0)
        codes.append(caught.value.code)

    no = threading.Thread(target=refuse)

    def slow(*values: Any, **named: Any) -> Execution | None:
        no.start()
        no.join(0.5)  # it waits for the yes
        return cached(*values, **named)

    monkeypatch.setattr(agent.runs, "cached", slow)
    assert agent.runs.start_ordered(local.id, recipe)
    no.join()
    assert codes == ["REVIEW_NOT_FOUND"]
    assert not agent.journal.sent_about(f"ended:{number}")


def test_a_release_that_comes_right_after_a_cancellation_is_too_late(
    bench: Bench, north: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, agent = bench.order(ready_with_second(bench, north)), north.agent
    (review,) = wait_for(agent.journal.reviews)
    agent.reviews.approve(review.id, agent.reviews.get(review.id, 0).digest, 0)
    (review,) = wait_for(agent.journal.reviews)
    (local,) = agent.journal.executions(execution_id=number)
    name = name_of(local)
    with north.api() as api:
        *_, event = api.DraftResult(site_pb2.DraftResultRequest(name=name))
    ended, codes = agent.runs.ended, []

    def late(execution: Execution) -> None:
        with pytest.raises(Refusal) as caught:
            agent.releases.release(event.draft.digest, os.getuid())
        codes.append(caught.value.code)
        ended(execution)

    monkeypatch.setattr(agent.runs, "ended", late)
    agent.runs.cancel(local.id, "enough")
    assert codes == ["REVIEW_DECIDED"]
    assert not agent.journal.sent_about(f"result:{name}")
    assert wait_ended(bench, number).state == pb.EXECUTION_STATE_CANCELLED


def test_a_policys_no_leaves_what_is_no_longer_considered(bench: Bench, north: Site) -> None:
    number, agent = bench.order(ready_with_second(bench, north)), north.agent
    wait_for(agent.journal.reviews)
    (local,) = agent.journal.executions(execution_id=number)
    rule = by_policy("sha256:a", "no")
    outcomes = agent.orders.outcomes
    assert not outcomes.refuse(local, "CONSENT_REFUSED", rule, expected=State.ORDERED)
    assert agent.journal.execution(local.id).state is State.WAITING_CONSENT
    assert agent.journal.open_orders()


def test_a_policy_refuses(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path, run="refuse"))
    with site.serving(bench, tmp_path, settings) as north:
        steps = len(bench.engine.started)
        ended = wait_ended(bench, bench.order(ready_with_second(bench, north)))
        assert (ended.state, ended.reason) == (pb.EXECUTION_STATE_REFUSED, "CONSENT_REFUSED")
        assert len(bench.engine.started) == steps + 5, "only preparation and the test ran"


def test_only_the_code_of_a_failure_leaves(bench: Bench, tmp_path: Path) -> None:
    def failing(step: FakeStep) -> int:
        step.log("patient a.txt is odd")
        return 4

    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path))
    with site.serving(bench, tmp_path, settings) as north:
        number = bench.order(ready_with_second(bench, north, failing))
        ended = wait_ended(bench, number)
        assert (ended.state, ended.reason) == (pb.EXECUTION_STATE_FAILED, "STEP_FAILED")
        (entry,) = north.agent.journal.sent_about(f"ended:{number}")
        assert b"patient" not in entry.envelope


def test_a_cancelled_order_stops(bench: Bench, tmp_path: Path) -> None:
    running = threading.Event()

    def hang(step: FakeStep) -> int:
        running.set()
        step.stopping.wait(20)
        return 143

    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path))
    with site.serving(bench, tmp_path, settings) as north:
        number = bench.order(ready_with_second(bench, north, hang))
        assert running.wait(10)
        bench.carla.state(pb.ExecutionCancelled(execution_ids=[number], reason="wrong model"))
        journal = north.agent.journal
        local = journal.executions(execution_id=number)[0]
        wait_for(lambda: journal.execution(local.id).state is State.CANCELLED)
        wait_for(lambda: not bench.engine.adopt({"housecall.step": "infer"}))
        assert journal.order(number)
        assert not journal.open_orders()


def test_who_shares_a_run_outlives_whoever_began_it(bench: Bench, tmp_path: Path) -> None:
    go_on = threading.Event()

    def held(step: FakeStep) -> int:
        return site.infer(step) if go_on.wait(20) else 1

    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path))
    with site.serving(bench, tmp_path, settings) as north:
        second, agent = ready_with_second(bench, north, held), north.agent
        recipe = agent.executor.recipe(1, second.id, "north/1")
        first = agent.runs.start(recipe, "TEST").execution
        wait_for(lambda: bench.engine.adopt({"housecall.step": "infer"}))
        numbers = [bench.order(second)]
        wait_for(lambda: agent.runs.live() and agent.journal.executions(source_id=first.id)[1:])
        agent.runs.cancel(first.id, "by hand")
        assert agent.runner.strays.sweep(agent.runs.live) == 0
        late = agent.journal.add_execution(replace(first, id=0, source_id=0, state=State.ORDERED))
        agent.runs.start_ordered(late.id, recipe)
        assert agent.journal.execution(late.id).state is State.RUNNING
        go_on.set()
        assert wait_ended(bench, numbers[0]).state == pb.EXECUTION_STATE_SUCCEEDED
        wait_for(lambda: agent.journal.execution(late.id).state is State.SUCCEEDED)


def test_what_is_shared_goes_on_after_a_restart(bench: Bench, tmp_path: Path) -> None:
    """Its source was cancelled: nobody but those who share it is under way."""
    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path, release="ask"))
    with site.serving(bench, tmp_path, settings) as north:
        agent, second = north.agent, ready_with_second(bench, north)
        key = agent.executor.recipe(1, second.id, "north/1").key
        common = Execution(
            benchmark_id=1,
            model_id=second.id,
            model_digest=second.digest,
            dataset_id="north/1",
            purpose="TEST",
            key=key,
        )
        source = agent.journal.add_execution(replace(common, state=State.CANCELLED))
        sharer = replace(common, state=State.RUNNING, source_id=source.id)
        kept = agent.journal.add_execution(sharer)
        agent.runs.reconcile()
        wait_for(lambda: agent.journal.execution(kept.id).state is State.SUCCEEDED)


def test_a_person_at_the_site_cancels(bench: Bench, north: Site) -> None:
    number = bench.order(ready_with_second(bench, north))
    wait_for(north.reviews)
    local = north.agent.journal.executions(execution_id=number)[0]
    with north.api() as api:
        api.CancelLocalExecution(site_pb2.CancelLocalExecutionRequest(id=local.id))
    ended = wait_ended(bench, number)
    assert (ended.state, ended.reason) == (pb.EXECUTION_STATE_CANCELLED, "CANCELLED")
    assert not north.reviews()


def test_an_order_of_what_was_run_comes_from_the_cache(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path))
    with site.serving(bench, tmp_path, settings) as north:
        second = ready_with_second(bench, north)
        north.run()
        steps = len(bench.engine.started)
        number = bench.order(second)
        assert wait_ended(bench, number).state == pb.EXECUTION_STATE_SUCCEEDED
        assert len(bench.engine.started) == steps


def test_orders_wait_for_an_agent_that_is_away(bench: Bench, tmp_path: Path) -> None:
    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path))
    with site.serving(bench, tmp_path, settings) as north:
        second = ready_with_second(bench, north)
    number = bench.order(second)
    with site.serving(bench, tmp_path, settings):
        assert wait_ended(bench, number).state == pb.EXECUTION_STATE_SUCCEEDED


def test_an_order_whose_decision_fails_ends_with_a_code(
    bench: Bench, north: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = ready_with_second(bench, north)

    def broken(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(north.agent.orders.outcomes, "decide", broken)
    ended = wait_ended(bench, bench.order(second))
    assert (ended.state, ended.reason) == (pb.EXECUTION_STATE_FAILED, "INTERNAL")


def test_an_order_that_is_cancelled_while_its_decision_fails_stays_cancelled(
    bench: Bench, north: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, agent = ready_with_second(bench, north), north.agent

    def gone(execution: Execution) -> None:
        agent.orders.cancel(execution.id, local_user(0))
        raise Refusal(Kind.NOT_FOUND, "MODEL_NOT_FOUND", "gone")

    monkeypatch.setattr(agent.orders, "recipe", gone)
    number = bench.order(second)
    assert wait_ended(bench, number).state == pb.EXECUTION_STATE_CANCELLED
    wait_for(lambda: not agent.worker.find(f"order:{number}"))
    (local,) = agent.journal.executions(execution_id=number)
    assert (local.state, local.reason) == (State.CANCELLED, "CANCELLED")


def test_a_cancelled_execution_says_by_whom(bench: Bench, north: Site) -> None:
    bench.order(ready_with_second(bench, north))
    wait_for(north.reviews)
    local_id = north.agent.journal.executions()[-1].id
    with north.api() as api:
        api.CancelLocalExecution(site_pb2.CancelLocalExecutionRequest(id=local_id))
    assert "cancelled at the site by " in north.agent.journal.execution(local_id).problem


def test_a_release_that_is_not_what_was_approved_is_refused(
    bench: Bench, north: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = ready_with_second(bench, north)
    north.run(model_ids=[2])
    bench.order(second)
    (review,) = wait_for(north.reviews)
    with north.api() as api:
        api.ApproveReview(site_pb2.ApproveReviewRequest(id=review.id, digest=review.digest))
    wait_for(lambda: [r for r in north.reviews() if r.kind == site_pb2.REVIEW_KIND_RELEASE])
    execution = north.agent.journal.executions()[-1]
    assert execution.finished_at, "also when it came from the cache"
    (review,) = north.reviews()
    monkeypatch.setattr("agent.reviews.Reviews._draft", lambda *_: "sha256:another")
    with pytest.raises(Refusal) as caught, north.api() as api:
        api.ApproveReview(site_pb2.ApproveReviewRequest(id=review.id, digest=review.digest))
    assert caught.value.code == "REVIEW_DIGEST_DIFFERS"


def test_a_registration_has_its_id_without_a_receipt() -> None:
    waiting = Outgoing("sha256:a", b"", "DatasetRegistered", "dataset:7", "north/7")
    assert sent(waiting).id == "north/7"
