"""Which result a result replaces: the one that stands when the coordinator takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.release import Releases
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.gated import Gate
from tests.agent.site import Bench, Site, wait_for
from tests.agent.test_orders import policy, wait_ended


def approve(north: Site) -> None:
    """A person says yes to what waits."""
    (review,) = wait_for(north.agent.journal.reviews)
    shown = north.agent.reviews.get(review.id, 0)
    north.agent.reviews.approve(review.id, shown.digest, 0)


@pytest.mark.parametrize("release", ["allow", "ask"])
def test_an_order_outlives_the_refusal_of_the_result_that_its_own_replaces(
    bench: Bench, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    """The committee cancels the order of a silent site, and orders again. The site comes back: the
    second result is released while the first one still waits."""
    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path, release=release))
    model, asked = bench.add_model("gated", gate.infer), release == "ask"
    with site.serving(bench, tmp_path, settings) as north:
        north.ready()
        bench.approve_model(model)
        first, agent = bench.order(model), north.agent
        wait_for(lambda: gate.steps)
        agent.link.close()
        wait_for(lambda: not agent.link.state.connected)
        agent.releases.receipt_seconds = 0
        gate.opened.set()
        if asked:
            approve(north)
        wait_for(agent.journal.waiting)
    bench.carla.state(pb.ExecutionCancelled(execution_ids=[first], reason="silent"))
    second, refuse = bench.order(model), Releases.refuse
    codes: list[str] = []

    def late(self: Releases, digest: str, refusal: tuple[str, str, str]) -> None:
        wait_for(lambda: codes or len(self._journal.waiting()) == 2)
        codes.append(refusal[1])
        refuse(self, digest, refusal)

    monkeypatch.setattr(Releases, "refuse", late)
    with site.serving(bench, tmp_path, settings) as north:
        if asked:
            north.agent.releases.receipt_seconds = 0
            approve(north)
            wait_for(lambda: len(codes) == 2)
            approve(north)
        assert wait_ended(bench, second).state == pb.EXECUTION_STATE_SUCCEEDED
    assert codes == ["EXECUTION_ENDED", "SUPERSEDES_NOTHING"]
    found = bench.carla.registry.GetResult(reg.GetResultRequest(name="north/b1m2d1")).result
    assert (found.statement.execution_id, found.statement.supersedes) == (second, "")
