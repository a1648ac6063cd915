"""One trace from the command line to the container: three programs that tell each other nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from agent.server import Agent
from agent.telemetry import observed
from agent.traces import of_step
from housecall import tracing
from housecall.v1 import registry_pb2 as reg
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.process import founded
from tests.agent.site import Bench, Site, wait_for
from tests.collector import Collector, Seen, collecting
from tests.coordinator.process import PROGRAMS, coordinator_process
from tests.coordinator.world import World, sha

NOBODY = "http://127.0.0.1:9"


@contextmanager
def traced_site(bench: Bench, folder: Path, endpoint: str) -> Iterator[Site]:
    policy = folder / "policy.yaml"
    rule = {"name": "trusted", "benchmark": 1, "run": "allow", "release": "allow"}
    policy.write_text(yaml.safe_dump({"rules": [rule]}))
    settings = site.enrolled(bench, folder, policy_file=policy, trace_endpoint=endpoint)
    with observed(Agent(settings, lambda _: bench.engine)) as agent:
        made = Site(bench, folder, settings, agent)
        made.wait_linked()
        yield made


def housecall(world: World, endpoint: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line as carla."""
    home = world.folder / "home"
    home.mkdir(exist_ok=True)
    if not (home / "identity").exists():
        (home / "identity").symlink_to(world.folder / "identities" / "carla")
    return subprocess.run(
        [PROGRAMS / "housecall", *words],
        env={**os.environ, "HOUSECALL_HOME": str(home), "HOUSECALL_TRACE_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def test_one_execution_is_one_trace(tmp_path: Path, collector: Collector) -> None:
    with coordinator_process(tmp_path, trace_endpoint=collector.endpoint) as world:
        bench = founded(world)
        with traced_site(bench, tmp_path, collector.endpoint) as north:
            north.ready()
            second = bench.add_model("second")
            bench.approve_model(second)
            order = ["benchmark", "run", "1", "--all-sites", "--model", str(second.id), "--yes"]
            done = housecall(world, collector.endpoint, *order)
            assert done.returncode == 0, done.stderr
            request = reg.GetExecutionRequest(id=1)
            wait_for(
                lambda: (
                    bench.carla.registry.GetExecution(request).execution.state
                    == pb.EXECUTION_STATE_SUCCEEDED
                )
            )
            wait_for(lambda: not north.agent.journal.waiting())
            ordered = bench.carla.registry.GetExecution(request).execution.origin.envelope_digest
    root = tracing.of_envelope(ordered)
    spans = {(each.service, each.name): each for each in collector.of_trace(root.trace)}
    expect_tree(spans, f"{root.span_id:016x}")
    step = spans["housecall-agent", "infer"]
    container = bench.engine.started[-2].name
    below = tracing.of_order(ordered, 0).child("step", container)
    assert step.span == f"{below.span_id:016x}"
    assert step.attributes["housecall.execution_id"] == 1
    assert step.attributes["housecall.image_digest"] == sha("image of second")
    expect_reads(collector, spans["housecall", "housecall benchmark run"])
    told = str(collector.seen)
    for private in (str(tmp_path), "case", "accuracy", "carla", "mona", "scans"):
        assert private not in told


def test_every_container_finds_the_span_of_its_step(bench: Bench, north: Site) -> None:
    north.ready()
    assert len(bench.engine.started) == 5
    instance = north.agent.runner.cage.instance
    for spec in bench.engine.started:
        owner = spec.labels["housecall.owner"]
        at = of_step(north.agent.journal, instance, owner, spec.name)
        assert spec.environment["TRACEPARENT"] == at.traceparent


def expect_tree(spans: dict[tuple[str, str], Seen], root: str) -> None:
    agent, coordinator = "housecall-agent", "housecall-coordinator"
    command = spans["housecall", "housecall benchmark run"]
    assert (command.span, command.parent) == (root, "")
    execution = spans[agent, "execution"]
    assert execution.parent == root
    assert spans[coordinator, "accept"].parent == root
    below = ("receive", "consent", "infer", "evaluate", "submit")
    assert {spans[agent, name].parent for name in below} == {execution.span}
    assert spans[coordinator, "accept answer"].parent == spans[agent, "submit"].span
    began = [spans[agent, name].began for name in ("receive", "infer", "evaluate", "submit")]
    assert began == sorted(began)
    assert command.began <= began[0]


def expect_reads(collector: Collector, command: Seen) -> None:
    """What the command read is below its own span, which the statement's root is linked to."""
    reads = [
        each
        for each in collector.named("/housecall.v1.Registry/GetBenchmark")
        if each.parent == command.link
    ]
    assert reads
    assert {each.service for each in reads} == {"housecall-coordinator"}


def test_a_command_does_not_wait_for_a_collector_that_is_away(tmp_path: Path) -> None:
    with coordinator_process(tmp_path, trace_endpoint=NOBODY) as world:
        world.join("carla", pb.ROLE_PERSON)
        away = housecall(world, NOBODY, "benchmark", "ls")
        assert (away.returncode, away.stderr.count("\n") < 3) == (0, True), away.stderr
        clear = housecall(world, "http://collector.example:4317", "benchmark", "ls")
    assert clear.returncode == 0
    assert "warning: no trace of this command: trace_endpoint: expected https" in clear.stderr
