"""What Prometheus reads from a site's agent and its coordinator, right after work that is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from agent.server import Agent
from agent.settings import Settings
from agent.telemetry import observed
from housecall.errors import Refusal
from tests.agent import site
from tests.agent.fake_engine import FakeStep
from tests.agent.process import founded
from tests.agent.site import Site, wait_for
from tests.coordinator.process import coordinator_process
from tests.coordinator.world import free_port
from tests.scrape import Scrape

AGENT, COORDINATOR = "housecall_agent_", "housecall_coordinator_"


def fails(step: FakeStep) -> int:
    step.log("no")
    return 3


def test_counts_are_those_of_the_work(tmp_path: Path) -> None:
    here, there = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with coordinator_process(tmp_path, metrics_listen=there) as world:
        bench = founded(world)
        settings = site.enrolled(bench, tmp_path, metrics_listen=here, disk_reserve_bytes=4096)
        with observed(Agent(settings, lambda _: bench.engine)) as agent:
            north = Site(bench, tmp_path, settings, agent)
            north.wait_linked()
            north.ready()
            broken = bench.add_model("broken", fails)
            bench.approve_model(broken)
            north.run(model_ids=[broken.id])
            order = bench.order(broken)
            wait_for(north.reviews)
            agent_said = Scrape(here)
            expect_work(agent_said)
            expect_standing(agent_said, slots=settings.slots)
            state = "waiting_consent"
            wait_for(lambda: Scrape(there)(f"{COORDINATOR}orders_reported", state=state) == order)
            said = Scrape(there)
            assert said(f"{COORDINATOR}sites_connected") == 1
            assert said(f"{COORDINATOR}orders_open") == 1
            stream = "/housecall.v1.Fleet/Connect"
            assert said(f"{COORDINATOR}streams", method=stream) == 1
    for private in (str(tmp_path), str(settings.state_dir), "north", "carla", "scans", "broken"):
        assert private not in agent_said.text + said.text


def expect_work(said: Scrape) -> None:
    """The dataset's preparation, the reference test of its association, a model that fails."""
    steps = f"{AGENT}steps_total"
    for task in ("prepare", "sanity_check", "statistics", "evaluate"):
        assert said(steps, task=task, code="OK") == 1
    assert said(steps, task="infer", code="OK") == 1
    assert said(steps, task="infer", code="STEP_FAILED") == 1
    assert said(f"{AGENT}step_seconds_count", task="infer") == 2
    executions = f"{AGENT}executions"
    assert said(executions, state="succeeded") == 1
    assert said(executions, state="failed") == 1
    assert said(executions, state="waiting_consent") == 1
    assert said(f"{AGENT}orders_open") == 1
    assert said(f"{AGENT}reviews_waiting") == 1
    assert said(f"{AGENT}outbox_waiting") == 0
    assert said(f"{AGENT}journal_commit_seconds_count") > 20


def expect_standing(said: Scrape, *, slots: int) -> None:
    assert said(f"{AGENT}link_up") == 1
    assert said(f"{AGENT}link_down_seconds") == 0
    assert abs(said(f"{AGENT}clock_skew_seconds")) < 5
    left = said(f"{AGENT}certificate_expiry_timestamp_seconds") - time.time()
    assert 6 * 86400 < left <= 30 * 86400
    assert (said(f"{AGENT}slots"), said(f"{AGENT}slots_running")) == (slots, 0)
    assert said(f"{AGENT}disk_free_bytes") > said(f"{AGENT}disk_reserve_bytes") == 4096
    assert said(f"{AGENT}gpus") >= said(f"{AGENT}gpus_in_use") == 0


def test_what_waits_while_the_link_is_down_grows_old(tmp_path: Path) -> None:
    here = f"127.0.0.1:{free_port()}"
    with coordinator_process(tmp_path) as world:
        bench = founded(world)
        settings = site.enrolled(bench, tmp_path, metrics_listen=here)
        with observed(Agent(settings, lambda _: bench.engine)) as agent:
            north = Site(bench, tmp_path, settings, agent)
            north.wait_linked()
            assert Scrape(here)(f"{AGENT}outbox_oldest_seconds") == 0
            draft = north.draft("DraftDataset", north.registration())
    with observed(Agent(settings, lambda _: bench.engine)) as agent:
        north = Site(bench, tmp_path, settings, agent)
        agent.releases.receipt_seconds = 0.1
        north.release(draft)
        wait_for(lambda: Scrape(here)(f"{AGENT}outbox_oldest_seconds") > 0.1)
        agent.gpus.hold("dataset:1", ("GPU-1", "GPU-2"))
        said = Scrape(here)
        assert said(f"{AGENT}gpus_in_use") == 2
        assert said(f"{AGENT}link_up") == 0
        assert said(f"{AGENT}link_down_seconds") > 0
        assert said(f"{AGENT}outbox_waiting") == 1


@pytest.mark.parametrize(
    "changes", [{"metrics_listen": "9465"}, {"trace_endpoint": "http://collector.example:4317"}]
)
def test_what_cannot_be_is_refused_at_the_start(changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        Settings(**changes)
    assert caught.value.code == "SETTINGS_INVALID"
