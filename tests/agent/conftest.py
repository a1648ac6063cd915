from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.settings import Settings
from tests.agent import site
from tests.agent.gated import Gate, allowing
from tests.agent.site import Bench, Site


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with site.bench(tmp_path / "coordinator", allow_partial_results=True) as made:
        yield made


@pytest.fixture
def north(bench: Bench, tmp_path: Path) -> Iterator[Site]:
    """A site named north that is connected and holds nothing yet."""
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as made:
        yield made
    shutil.rmtree(settings.state_dir.parent, ignore_errors=True)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def settings(bench: Bench, gate: Gate, tmp_path: Path) -> Settings:
    """Of a site whose dataset is approved, with model 2 behind the gate."""
    made = site.enrolled(bench, tmp_path)
    made = made.model_copy(update={"policy_file": allowing(tmp_path)})
    with site.serving(bench, tmp_path, made) as north:
        north.ready()
        bench.approve_model(bench.add_model("gated", gate.infer))
    return made
