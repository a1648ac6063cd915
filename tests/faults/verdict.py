"""The reckoning: lost, duplicated, stuck, and whatever else is not as it must be.

lost        accepted or released, and not in the ledger where its receipt says; a checkpoint
            that the ledger does not continue; a result that was not made from what it names;
            an order that a site acknowledged and had not written down
duplicated  in the ledger twice; two outcomes of one order; a container that ran twice at once;
            a step that ran again after it had succeeded
stuck       an order, step, statement, review or container that has not ended
differs     a table that is not the ledger's projection; a foreign container that was touched
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import images, journals
from tests.faults.desk import Said
from tests.faults.ledger import History
from tests.faults.world import World

WORDS = ("lost", "duplicated", "stuck", "differs")


@dataclass
class Verdict:
    """One line of evidence for each thing that is wrong, by its word. `boundaries` says at how many
    sides of commits somebody died."""

    faults: int = 0
    boundaries: str = ""
    found: dict[str, list[str]] = field(default_factory=lambda: {word: [] for word in WORDS})

    @property
    def good(self) -> bool:
        return not any(self.found.values())

    def line(self) -> str:
        counts = ", ".join(f"{word} {len(self.found[word])}" for word in WORDS[:3])
        differs = len(self.found["differs"])
        return f"faults {self.faults}, {counts}" + (f", differs {differs}" if differs else "")


def reckon(world: World, history: History, verdict: Verdict) -> None:
    """All checks on the history of a world that has come to rest."""
    for desk in list(world.desks.values()):
        for said in desk.said:
            _check_said(said, history, verdict)
    _check_released(world, history, verdict)
    _check_checkpoints(world, history, verdict)
    _check_orders(history, verdict)
    _check_acknowledged(world, verdict)
    _check_results(world, history, verdict)
    _check_containers(world, verdict)
    verdict.found["lost"] += history.gaps
    for digest, indices in history.indices.items():
        if len(indices) > 1:
            verdict.found["duplicated"].append(f"{digest} is at entries {indices}")


def _check_said(said: Said, history: History, verdict: Verdict) -> None:
    """A receipt names the one entry; a refusal for good left none."""
    at = history.indices.get(said.digest, [])
    what = f"{said.kind} {said.digest} of {said.who}"
    if said.outcome == "accepted" and said.index not in at:
        verdict.found["lost"].append(f"{what}: receipt for entry {said.index}, found at {at}")
    if said.outcome == "refused" and at:
        verdict.found["lost"].append(f"{what}: refused with {said.code}, yet entry {at}")
    if not said.outcome:
        verdict.found["stuck"].append(f"{what}: neither accepted nor refused")


def _check_released(world: World, history: History, verdict: Verdict) -> None:
    """What a site released is in the ledger, or was refused for good."""
    now = {entry.digest: entry for site in world.sites for entry in journals.outbox(site)}
    seen = {**world.journals.released.entries, **now}
    for people in world.people:
        for digest in people.released - seen.keys():
            verdict.found["lost"].append(f"{digest} was released and is in no outbox")
    for digest, entry in seen.items():
        at = history.indices.get(digest, [])
        what = f"{entry.kind} {entry.about} {digest} of {entry.site}"
        refused = entry.state == "refused"
        if not at and entry.state == "waiting" and digest in now:
            continue  # stuck, as `rest.py` says
        if not at and not refused:
            verdict.found["lost"].append(f"{what}: {entry.state} in the outbox, not in the ledger")
        if at and refused:
            verdict.found["lost"].append(f"{what}: refused {entry.code}, yet entry {at}")
        if digest not in now:
            verdict.found["lost"].append(f"{what}: it was in the outbox and is gone")


def _check_checkpoints(world: World, history: History, verdict: Verdict) -> None:
    """The ledger continues every checkpoint that anybody ever had."""
    key = world.desks["olga"].identity.verifier_key
    seen = {journals.checkpoint(site) for site in world.sites}
    for desk in list(world.desks.values()):
        seen |= {*desk.checkpoints, *(said.checkpoint for said in desk.said)}
    for checkpoint in seen - {""}:
        if wrong := history.disagrees(checkpoint, key):
            verdict.found["lost"].append(wrong)


def _check_orders(history: History, verdict: Verdict) -> None:
    for number, order in history.orders.items():
        outcomes = history.outcomes.get(number, [])
        what = f"order {number} (model {order.model_id} on {order.dataset_id})"
        if not outcomes:
            verdict.found["stuck"].append(f"{what} has no outcome")
        if len(outcomes) > 1:
            verdict.found["duplicated"].append(f"{what} ended more than once: {outcomes}")


def _check_acknowledged(world: World, verdict: Verdict) -> None:
    """What a site takes on is in its journal before it says so."""
    for site, number in sorted(world.journals.unwritten):
        what = f"order {number}: {site} acknowledged it"
        verdict.found["lost"].append(f"{what} and had not written it down")


def _check_results(world: World, history: History, verdict: Verdict) -> None:
    """Metrics tell from whose predictions they were made, and of how many cases."""
    stamps = {model: stamp for stamp, model in world.committee.offers.stamps.items()}
    spoilt = {
        (site.name, order)
        for site in world.sites
        for order, local in journals.orders(site).items()
        if (site.name, local) in world.damaged
    }
    for result in history.results:
        site = result.dataset_id.partition("/")[0]
        expected = {"stamp": stamps.get(result.model.id), "cases": images.CASES}
        got = {name: int(result.metrics[name]) for name in expected}  # type: ignore[arg-type]
        if got != expected and (site, result.execution_id) not in spoilt:
            what = f"model {result.model.id} on {result.dataset_id}, order {result.execution_id}"
            verdict.found["lost"].append(f"result of {what}: expected {expected}, got {got}")


def _check_containers(world: World, verdict: Verdict) -> None:
    for ids, what in world.watch.overlaps.items():
        verdict.found["duplicated"].append(f"{what} ran twice at once: {' and '.join(ids)}")
    for site in world.sites:
        verdict.found["duplicated"] += repeated_steps(site.name, site.program.log, world)


def repeated_steps(site: str, log: Path, world: World) -> list[str]:
    """Steps of executions that the agent's log shows started again after they had succeeded."""
    done: set[tuple[str, str]] = set()
    found: Counter[str] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
            what = (str(event["owner"]), str(event["step"]))
            state = event["state"]
        except (ValueError, KeyError, TypeError):
            continue
        kind, _, number = what[0].partition(":")
        if kind != "execution" or (site, int(number)) in world.damaged:
            continue
        if state == "SUCCEEDED":
            done.add(what)
        elif state == "RUNNING" and what in done:
            found[f"{site} {what[0]} {what[1]} ran again after it had succeeded"] += 1
    return list(found)
