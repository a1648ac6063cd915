"""Room on the disk of the agent's state: asked for before a step, and told when there is none."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from housecall.errors import Kind, Refusal

FULL = (errno.ENOSPC, errno.EDQUOT)


def require_room(path: Path, reserve: int, need: int = 0) -> None:
    """Refuses with DISK_FULL where less than `reserve` bytes would be free after writing `need`."""
    free = shutil.disk_usage(path).free
    if free < reserve + need:
        foreseen = f" ({need} for what is to be written)" if need else ""
        raise Refusal(
            Kind.EXHAUSTED,
            "DISK_FULL",
            f"disk of the agent's state: expected at least {reserve + need} bytes free{foreseen}, "
            f"got {free}; free some, or lower the setting disk_reserve_bytes",
        )


def explained(error: BaseException) -> BaseException:
    """A full disk as the refusal that it is; anything else as it came."""
    full = isinstance(error, OSError) and error.errno in FULL
    return disk_full() if full else error


def disk_full() -> Refusal:
    return Refusal(
        Kind.EXHAUSTED,
        "DISK_FULL",
        "disk of the agent's state: expected room to write, got none; free some and try again",
    )
