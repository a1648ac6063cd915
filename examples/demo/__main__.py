"""`python -m examples.demo run|up|down`: the whole story, or its world to play with."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from examples.demo import benchmark, story, summary
from examples.demo.processes import DemoError
from examples.demo.world import COMMITTEE, HOSPITALS, World, build, tear_down
from examples.engine import EngineError, ensure_engine, stop_engine
from examples.images.packing import BuildError
from examples.images.plan import build_images

FOLDER = Path(".demo").resolve()
USAGE = "usage: python -m examples.demo run|up|down"


class Clock:
    """Progress lines with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        mark = "" if line.startswith(" ") else "== "
        print(f"[{time.monotonic() - self._began:6.1f} s] {mark}{line}", flush=True)


def up(clock: Clock, record: story.Record) -> World:
    """Engine, images, world, benchmark: ready for a hospital."""
    clock.say("a Docker engine")
    record.timed("engine", lambda: _engine(clock))
    clock.say("images (nothing is rebuilt that has not changed)")
    record.timed("images", lambda: _images(clock))
    worlds: list[World] = []
    record.timed("world", lambda: worlds.append(build(FOLDER / "world", clock.say)))
    record.timed("benchmark", lambda: benchmark.set_up(worlds[0]))
    return worlds[0]


def down(clock: Clock) -> None:
    tear_down(FOLDER / "world", clock.say)
    if stop_engine(FOLDER / "engine"):
        clock.say("stopped the Docker engine that was started here")


def run(clock: Clock) -> None:
    """The whole story; everything started is stopped, whatever happens."""
    record = story.Record()
    try:
        world = up(clock, record)
        story.tell(world, record)
        clock.say("verifying every submitted result with its file and the ledger's key alone")
        record.timed("verify", lambda: _finish(world, record))
        show(world, record)
    finally:
        down(clock)


def show(world: World, record: story.Record) -> None:
    """The tables that a person would look at."""
    for table in record.tables:
        print(f"\n{table}")
    for words in (
        ["association", "ls", "--benchmark", "1"],
        ["benchmark", "watch", "1", "--once"],
        ["result", "ls", "--benchmark", "1", "--purpose", "benchmark"],
        ["site", "ls"],
    ):
        done = World(world.folder, lambda _line: None, world.sockets).run(COMMITTEE, *words)
        print(f"\n{COMMITTEE}: housecall {' '.join(words)}\n{done.stdout}")


def _finish(world: World, record: story.Record) -> None:
    made = summary.write(world, record, FOLDER)
    world.say(f"{len(made['results'])} results submitted and verified; .demo/summary.json")


def _engine(clock: Clock) -> None:
    ensure_engine(FOLDER / "engine", lambda line: clock.say(f"  {line}"))


def _images(clock: Clock) -> None:
    build_images(only=None, base=None, say=lambda line: clock.say(f"  {line}"))


def main() -> int:
    clock = Clock()
    actions: dict[str, Callable[[Clock], None]] = {"run": run, "down": down, "up": _up}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        print(USAGE, file=sys.stderr)
        return 2
    FOLDER.mkdir(exist_ok=True)
    try:
        actions[sys.argv[1]](clock)
    except (DemoError, EngineError, BuildError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


def _up(clock: Clock) -> None:
    tear_down(FOLDER / "world", clock.say)
    up(clock, story.Record())
    clock.say(f"the world is up; begin with: source .demo/world/{HOSPITALS[0]}.env")


if __name__ == "__main__":
    sys.exit(main())
