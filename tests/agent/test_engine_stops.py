"""An engine of the test's own that is stopped, as an upgrade does: without live-restore it stops
its containers first, and who watches sees them end with whatever code they choose."""

from __future__ import annotations

import gc
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.containers import Ready
from agent.engines.docker import DockerEngine
from agent.events import Feed
from agent.gpus import GpuPool
from agent.journal import Journal
from agent.pipeline import StepRunner
from agent.staging import Output
from agent.step import Cage, Clocks, Step
from agent.worker import SHUTDOWN, Stop
from housecall.container_config import Role, parse
from housecall.errors import Refusal
from housecall.v1 import statements_pb2 as pb
from tests.agent.site import wait_for
from tests.agent.test_docker import LIMITS
from tests.faults.engine import EngineProgram
from tests.faults.programs import Keeper

CONFIG = """
container_type: DockerImage
image: model:1
tasks:
  infer:
    run_args:
      command: ["sh", "-c", "{script}"]
    input_volumes:
      data_path: {{mount_path: /in, type: directory}}
    output_volumes:
      output_path: {{mount_path: /out, type: directory}}
"""
WORK = "echo half > /out/half; until test -e /in/go; do sleep 0.1; done; echo whole > /out/whole"
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ENDS = ["trap 'exit 0' TERM;", "trap 'exit 1' TERM;", "trap 'kill -9 $$' TERM;"]
"""How containers answer the engine that stops them."""


@pytest.fixture(scope="module")
def program() -> Iterator[EngineProgram]:
    keeper = Keeper()
    with tempfile.TemporaryDirectory(prefix="hc-") as folder:
        made = EngineProgram(Path(folder) / "engine", Path(folder), keeper, live_restore=False)
        try:
            made.start()
            yield made
        finally:
            made.close()
            keeper.close()


@dataclass
class Ward:
    """Steps of one image, run as the agent does, on that engine."""

    program: EngineProgram
    engine: DockerEngine
    journal: Journal
    folder: Path
    image_id: str

    def runner(self) -> StepRunner:
        cage = Cage("10001:10001", LIMITS, 2**20, 1, "info", self.folder, 0, "0123456789abcdef")
        return StepRunner(self.engine, GpuPool(()), self.journal, cage)

    def step(self, number: int) -> Step:
        folder = self.folder / str(number)
        config = parse(CONFIG.format(script=ENDS[number] + WORK), Role.MODEL)
        container = Ready(f"sha256:{number:064x}", "", self.image_id, config, "", None, "", "")
        return Step(
            owner=f"dataset:{number}",
            container=container,
            task="infer",
            inputs={"data_path": self.folder / "in"},
            outputs={"output_path": Output(folder / "predictions")},
            logs=folder / "logs",
            clocks=Clocks(600, 600),
        )

    def begun(self, number: int) -> bool:
        return (self.folder / str(number) / "predictions.part" / "half").exists()

    def stop_engine(self) -> None:
        """The keeper starts it again, as systemd does."""
        before = self.program.program.pid
        self.program.program.send(signal.SIGTERM)
        wait_for(lambda: self.program.program.pid not in (0, before), 60)
        wait_for(self.program.answers, 60)


@pytest.fixture
def ward(program: EngineProgram, tmp_path: Path) -> Iterator[Ward]:
    (tmp_path / "in").mkdir(mode=0o755)
    with (
        closing(DockerEngine(program.url, allow_pull=False)) as engine,
        closing(Journal(tmp_path / "journal.sqlite")) as journal,
    ):
        yield Ward(program, engine, journal, tmp_path, program.image())
    gc.collect()  # the SDK leaves it the sockets that found nobody


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "while the agent is away"])
def test_steps_go_on_after_the_engine_was_stopped(ward: Ward, watched: bool) -> None:
    numbers, stop = range(len(ENDS)), Stop()
    with ThreadPoolExecutor() as pool:

        def run(stop: Stop) -> list[Future[pb.StepRecord]]:
            runner = ward.runner()
            return [pool.submit(runner.run, ward.step(each), Feed(), stop) for each in numbers]

        steps = run(stop)
        wait_for(lambda: all(map(ward.begun, numbers)))
        if not watched:
            stop.ask(SHUTDOWN)
            for step in steps:
                with suppress(Refusal):
                    step.result()
        ward.stop_engine()
        steps = steps if watched else run(Stop())
        wait_for(lambda: all(kept.tries == 2 for kept in ward.journal.begun_steps()), 60)
        (ward.folder / "in" / "go").touch()
        records = [step.result(60) for step in steps]
    assert [record.state for record in records] == [pb.STEP_STATE_SUCCEEDED] * len(ENDS)
    for number in numbers:
        written = sorted(
            path.name for path in ward.step(number).outputs["output_path"].path.iterdir()
        )
        assert written == ["half", "whole"]


def test_who_stops_a_container_at_the_engine_has_it_started_again(ward: Ward) -> None:
    done = threading.Event()
    with ThreadPoolExecutor() as pool:
        step = pool.submit(ward.runner().run, ward.step(0), Feed(), Stop())
        step.add_done_callback(lambda _: done.set())
        wait_for(lambda: ward.begun(0))
        (found,) = ward.engine.adopt({"housecall.owner": "dataset:0"})
        ward.engine.stop(found.container_id, 5)
        wait_for(lambda: [kept for kept in ward.journal.begun_steps() if kept.tries == 2])
        assert not done.is_set()
        (ward.folder / "in" / "go").touch()
        assert step.result(60).state == pb.STEP_STATE_SUCCEEDED


def test_what_ended_by_itself_is_believed(ward: Ward) -> None:
    """While the agent was away, too."""
    (ward.folder / "in" / "go").touch()
    ward.runner().run(ward.step(1), Feed(), Stop())
    assert ward.journal.steps("dataset:1")[0].tries == 1
