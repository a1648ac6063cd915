"""How a benchmark reports: one JSON line a figure, a ratio against its bound."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping


def figure(
    name: str, ratio: float, bound: float, at_least: bool, values: Mapping[str, float]
) -> None:
    """Print `{"name", "ratio", "bound", "ok", "values"}`.

    `ok` says whether the ratio is at least the bound, or at most when `at_least` is false.
    `values` are the measurements behind it, the unit in their names (`plain_s`).
    """
    ok = ratio >= bound if at_least else ratio <= bound
    line = {
        "name": name,
        "ratio": round(ratio, 2),
        "bound": bound,
        "ok": ok,
        "values": {key: round(value, 4) for key, value in values.items()},
    }
    print(json.dumps(line), flush=True)


def progress(line: str) -> None:
    """What goes on, for whoever watches: standard output has nothing but figures."""
    print(line, file=sys.stderr, flush=True)
