"""The hospitals' journey, and the late model that reaches them by order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from examples.demo.benchmark import (
    LATE,
    approve_requests,
    associate_model,
    policy,
    take_part,
)
from examples.demo.processes import DemoError
from examples.demo.world import COMMITTEE, HOSPITALS, REFERENCE, World

ORDER_SECONDS = 180.0
SOME_MODELS_FAILED = 10


@dataclass
class Record:
    """What happened, for the summary: `errors` rows are {"site", "model_id", "reason"}."""

    errors: list[dict[str, Any]] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, step: str, act: Callable[[], None]) -> None:
        began = time.monotonic()
        act()
        self.seconds[step] = round(time.monotonic() - began, 1)


def tell(world: World, record: Record) -> None:
    """Every hospital from registration to submission, then the late model."""
    for site in HOSPITALS:
        world.say(f"{site}: from raw data to results")
        record.timed(f"{site} takes part", lambda site=site: take_part(world, site))  # type: ignore[misc]
        approve_requests(world)
        record.timed(f"{site} runs", lambda site=site: run_and_submit(world, site, record))  # type: ignore[misc]
    run_and_submit(world, REFERENCE, record)
    world.say("a fourth model is approved late and reaches the sites by order")
    record.timed("late model", lambda: late_model(world))


def run_and_submit(world: World, site: str, record: Record) -> None:
    """`benchmark run`, look at the results, submit each."""
    done = world.run(site, "benchmark", "run", "1", "--dataset", "1", check=False)
    if done.returncode not in (0, SOME_MODELS_FAILED):
        raise DemoError(f"benchmark run at {site} ended with {done.returncode}\n{done.stderr}")
    record.tables.append(f"{site}: housecall benchmark run 1 --dataset 1\n{done.stdout}")
    rows = world.json(site, "benchmark", "run", "1", "--dataset", "1", check=False)["rows"]
    for row in rows:
        if row["error_code"]:
            reason = row["error_code"]
            record.errors.append({"site": site, "model_id": row["model_id"], "reason": reason})
            continue
        world.run(site, "result", "show", row["result"])
        world.run(site, "result", "submit", row["result"], "--yes")


def late_model(world: World) -> None:
    """One hospital consents by policy, one by review, one refuses."""
    world.policy("north").write_text(policy("models of mona's", run="allow"))
    associate_model(world, LATE)
    order = ["benchmark", "run", "1", "--all-sites", "--model", str(LATE), "--yes"]
    world.run(COMMITTEE, *order)
    _review(world, "south", "approve")
    _review(world, "south", "approve")
    _review(world, "east", "refuse")
    await_orders(world)


def _review(world: World, site: str, verdict: str) -> None:
    """Wait for the next open review at a site and decide it."""
    quiet = World(world.folder, lambda _line: None, world.sockets)
    deadline = time.monotonic() + ORDER_SECONDS
    while not (reviews := quiet.json(site, "review", "ls")):
        if time.monotonic() > deadline:
            raise DemoError(f"no review at {site} within {ORDER_SECONDS:.0f} s")
        time.sleep(0.2)
    number = str(reviews[0]["id"])
    world.run(site, "review", "show", number)
    world.run(site, "review", verdict, number, "--yes")


def await_orders(world: World) -> None:
    """Until no order of the late model is open."""
    quiet = World(world.folder, lambda _line: None, world.sockets)
    ended = {"succeeded", "failed", "refused", "cancelled"}
    deadline = time.monotonic() + ORDER_SECONDS
    while True:
        rows = quiet.json(COMMITTEE, "execution", "ls")
        if all(row["state"] in ended for row in rows):
            return
        if time.monotonic() > deadline:
            raise DemoError(f"orders still open after {ORDER_SECONDS:.0f} s: {rows}")
        time.sleep(0.2)
