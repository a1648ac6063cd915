"""One agent a state folder: two would undo each other's work."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from housecall.errors import Kind, Refusal


def only_one(state: Path) -> int:
    """A descriptor that holds the folder until it is closed or the process is gone. Raises
    `Refusal` AGENT_RUNNING."""
    lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise Refusal(
            Kind.UNAVAILABLE,
            "AGENT_RUNNING",
            f"state folder {state}: another agent uses it; stop that one first",
        ) from None
    return lock
