"""Which coordinators are up on this store: this one, and what the others said of themselves.

Nothing here is durable (coordinator/gossip.py). Changed on the event loop; `all` is for any thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

MOST_CHARACTERS = 250


@dataclass(frozen=True)
class Replica:
    """A process that serves. `store` is where its database is, as it sees it; all but the name is
    empty for one that did not introduce itself yet."""

    name: str
    host: str = ""
    version: str = ""
    store: str = ""
    serving_since: datetime | None = None

    def written(self) -> dict[str, str]:
        """As JSON takes it, short enough for a note."""
        texts = {name: getattr(self, name)[:MOST_CHARACTERS] for name in _TEXTS}
        since = self.serving_since
        return texts | ({"serving_since": since.isoformat()} if since else {})


_TEXTS = [each.name for each in fields(Replica) if each.name != "serving_since"]


def read_replica(written: dict[str, Any]) -> Replica:
    """Fields of a newer version are passed over."""
    since = written.get("serving_since")
    texts = {name: str(written[name]) for name in _TEXTS if name in written}
    return Replica(**texts, serving_since=datetime.fromisoformat(since) if since else None)


class Replicas:
    """This one and those that were heard lately."""

    def __init__(self, own: Replica) -> None:
        self.own = own
        self._others: dict[str, Replica] = {}
        self._heard: dict[str, float] = {}

    def __bool__(self) -> bool:
        """Whether there are others."""
        return bool(self._others)

    def hear(self, name: str) -> bool:
        """Whether it was not known before."""
        is_new = name not in self._others
        self._others.setdefault(name, Replica(name))
        self._heard[name] = time.monotonic()
        return is_new

    def learn(self, replica: Replica) -> None:
        """What one that was heard says of itself."""
        if replica.name in self._others:
            self._others[replica.name] = replica

    def silent(self, seconds: float) -> list[str]:
        """Those not heard for so long."""
        now = time.monotonic()
        return [name for name, heard in self._heard.items() if now - heard > seconds]

    def lose(self, name: str) -> bool:
        """Whether it was known."""
        self._heard.pop(name, None)
        return self._others.pop(name, None) is not None

    def all(self) -> list[Replica]:
        """By their names."""
        return sorted([self.own, *self._others.values()], key=lambda each: each.name)
