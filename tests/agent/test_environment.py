"""An engine that takes connections and says nothing: it holds up nothing but what needs it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import agent.environment
import agent.server
from agent.engines.docker import DockerEngine
from agent.environment import Environment
from agent.journal_file import BACKUP
from agent.server import Agent
from tests.agent import site
from tests.agent.fake_engine import FakeEngine
from tests.agent.site import Bench, Site, wait_for
from tests.agent.test_status import status


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "engine.sock"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen(16)
        yield f"unix://{path}"


def test_the_link_comes_up_and_status_says_what_is_wrong(
    bench: Bench, tmp_path: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.server, "PATIENT_S", 0.2)
    settings = site.enrolled(bench, tmp_path)

    def engine(allow_pull: bool) -> DockerEngine:
        return DockerEngine(silent, allow_pull=allow_pull)

    with Agent(settings, engine) as made:
        north = Site(bench, tmp_path, settings, made)
        north.wait_linked()
        found = status(north)
        wait_for((settings.state_dir / BACKUP).exists)  # upkeep goes on
    assert found.connected
    assert "doctor --check engine" in found.engine_problem
    assert found.environment.architecture, "what needs no engine is known"
    shutil.rmtree(settings.state_dir.parent, ignore_errors=True)


def test_a_question_under_way_is_shared(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = DockerEngine(silent, allow_pull=False)
    environment = Environment(engine, ())
    assert not environment.facts(0.05).engine
    asked = environment._asked
    assert not environment.facts(0.05).engine
    assert environment._asked is asked


def test_the_answer_is_the_newest() -> None:
    engine = FakeEngine()
    environment = Environment(engine, ())
    assert environment.facts().engine == "fake"
    engine.unreachable = True
    assert not environment.facts().engine
    engine.unreachable = False
    assert environment.facts().engine == "fake"
