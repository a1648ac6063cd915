"""What a run prints and leaves behind: the faults, the deaths, the findings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from tests.faults import boundaries, ledger
from tests.faults.verdict import Verdict
from tests.faults.world import World

Say = Callable[[str], None]
MOST_LINES = 20


def show(world: World, happened: Counter[str], missed: Counter[str], say: Say) -> None:
    say("\nkind                     happened  met nothing")
    for kind in sorted(happened | missed):
        say(f"{kind:<24} {happened[kind]:>8} {missed[kind]:>12}")
    say(f"\ncontainers: {len(world.watch.runs)}, looks: {world.watch.looks}")
    history = ledger.read(world.coordinators.url)
    if history is not None:
        ends = Counter(each for number in history.outcomes for each in history.outcomes[number])
        say(f"ledger: {len(history.envelopes)} entries, {len(history.orders)} orders: {dict(ends)}")


def keep(world: World, verdict: Verdict, say: Say) -> None:
    """`commits.json` and `verdict.json`, and the most telling of both."""
    deaths = _deaths(world)
    never = sorted(side for side, count in deaths.items() if not count)
    verdict.boundaries = f"{len(deaths) - len(never)} of {len(deaths)} sides"
    for name, content in (("commits.json", deaths), ("verdict.json", verdict.found)):
        (world.options.folder / name).write_text(json.dumps(content, indent=1))
    for word, lines in {"nobody died at": never, **verdict.found}.items():
        for line in lines[:MOST_LINES]:
            say(f"{word}: {line}")


def _deaths(world: World) -> dict[str, int]:
    """How often somebody died at each side of a commit."""
    deaths: dict[str, int] = {}
    for kind, traps in world.traps.items():
        folder = traps[0].parent
        died = Counter(boundaries.deaths(folder))
        program = kind.removesuffix("-boundary")
        deaths |= {f"{program} {side}": died[side] for side in boundaries.sides(folder)}
    return deaths
