"""One demo world for all stories: real programs, real containers, mutual TLS on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from examples.demo.benchmark import set_up
from examples.demo.world import World, build, tear_down
from examples.engine import ensure_engine, stop_engine
from examples.images.plan import build_images


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Docker engine with the demo's images; none to be had is a failure that says so."""
    state = tmp_path_factory.mktemp("engine")
    ensure_engine(state, _say)
    build_images(only=None, base=None, say=_say)
    yield
    stop_engine(state)


@pytest.fixture(scope="session")
def world(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Benchmark 1 with models 1, 2 and 4 approved; the hospitals have done nothing yet."""
    folder = tmp_path_factory.mktemp("demo") / "world"
    try:
        made = build(folder, _say)
        set_up(made)
        yield made
    finally:
        tear_down(folder, _say)
