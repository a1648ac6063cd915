"""A note between replicas: JSON, read leniently, since replicas may differ in version.

`replica` said it, `at` by its own monotonic clock; then any of
  claims, key    streams that begin, and which call of its own it answers
  left           streams that are served no more
  sites          standings, as they are now
  doing          orders' progress
  preparing      preparations' progress
  self           the replica itself
  ask            a replica that shall tell everything, "" for all
  bye            it stops
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from coordinator.preparations import Preparation, read_preparation
from coordinator.replicas import Replica, read_replica
from coordinator.standing import Doing, Standing, read_doing, read_standing


@dataclass(frozen=True)
class Note:
    """What one says, in the words of the domain."""

    replica: str
    at: float
    key: str
    claims: dict[str, Standing]
    left: dict[str, int]
    sites: dict[str, Standing]
    doing: dict[int, Doing]
    preparing: dict[str, Preparation]
    itself: Replica | None
    ask: str | None
    bye: bool


def write_note(replica: str, said: dict[str, Any]) -> str:
    at = round(time.monotonic(), 3)
    return json.dumps({"replica": replica, "at": at, **said}, separators=(",", ":"))


def read_note(payload: str) -> Note | None:
    """None where it cannot be read."""
    try:
        said = json.loads(payload)
        return Note(
            replica=str(said["replica"]),
            at=float(said.get("at", 0)),
            key=str(said.get("key", "")),
            claims={site: read_standing(it) for site, it in said.get("claims", {}).items()},
            left=dict[str, int](said.get("left", {})),
            sites={site: read_standing(it) for site, it in said.get("sites", {}).items()},
            doing={int(each): read_doing(it) for each, it in said.get("doing", {}).items()},
            preparing={
                each: read_preparation(it) for each, it in said.get("preparing", {}).items()
            },
            itself=read_replica(said["self"]) if "self" in said else None,
            ask=said.get("ask"),
            bye=bool(said.get("bye")),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
