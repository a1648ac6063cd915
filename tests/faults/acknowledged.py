"""Orders that sites acknowledged, as the coordinators' logs tell.

An agent writes an order down before it acknowledges it. So whoever reads the logs first and its
journal then finds every acknowledged order there, at any moment, whoever died meanwhile. Only who
looks all the time can tell: what is missing is given again at the next Welcome.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

MARK = b'"order accepted"'


class Acknowledged:
    """Reads on in every log, each time that it is asked."""

    def __init__(self, logs: Sequence[Path]) -> None:
        self._read = dict.fromkeys(logs, 0)
        self._orders: dict[str, set[int]] = defaultdict(set)

    def by(self, site: str) -> set[int]:
        """The numbers of the orders that this site has acknowledged by now."""
        for log in self._read:
            self._read_on(log)
        return self._orders[site]

    def _read_on(self, log: Path) -> None:
        with log.open("rb") as file:
            file.seek(self._read[log])
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                self._read[log] += len(line)
                if MARK in line:
                    self._note(line)

    def _note(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return  # cut off by a kill
        self._orders[said["site"].rpartition("/")[2]].add(said["order"])
