"""An engine whose containerd died alone takes a container for running that ended meanwhile."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from docker.errors import DockerException

from agent.engines.docker import DockerEngine
from tests.faults.engine import EngineProgram
from tests.faults.programs import Keeper, wait_for


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProgram]:
    sockets = Path(tempfile.mkdtemp(prefix="hcf-"))  # a socket's path is short
    keeper = Keeper()
    made = EngineProgram(tmp_path / "engine", sockets, keeper, live_restore=False)
    try:
        yield made
    finally:
        keeper.close()
        made.close()
        shutil.rmtree(sockets, ignore_errors=True)
    gc.collect()  # the SDK leaves it the sockets that found nobody


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(os.geteuid() != 0, reason="an engine of its own needs root")
def test_an_end_that_the_engine_never_learns(engine: EngineProgram) -> None:
    image = engine.ready()
    made, another = (
        engine.ask(lambda api: api.create_container(image, ["sleep", "600"]))["Id"] for _ in "12"
    )
    engine.ask(lambda api: api.start(made))

    def state() -> dict[str, object]:
        found: dict[str, object] = engine.ask(lambda api: api.inspect_container(made))["State"]
        return found

    def starts_another() -> bool:
        with suppress(DockerException, OSError):
            engine.ask(lambda api: api.start(another))
            return True
        return False

    with closing(DockerEngine(engine.url, allow_pull=False)) as ours:
        assert ours.may_run(made)
        assert engine.kill_containerd()
        os.kill(int(str(state()["Pid"])), signal.SIGKILL)
        wait_for(lambda: not ours.may_run(made), "its process ended")
        wait_for(starts_another, "containerd is back")
        assert state()["Running"], "as the engine has it"
        assert ours.wait(made, 1) is None
        assert not ours.may_run(made)
        ours.remove(made)
        assert [each["Id"] for each in engine.containers()] == [another]
