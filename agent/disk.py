"""The disk of the agent's state: room is asked for before a step; what is wrong with it is told."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from housecall.errors import Kind, Refusal

FULL = (errno.ENOSPC, errno.EDQUOT)
LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
LEAST_FREE = 128 * 1024
"""Bytes; with less, a database does not open and a program may find no room for its output."""


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


def is_full(path: Path) -> bool:
    """Whether there is less free than LEAST_FREE."""
    return shutil.disk_usage(path).free < LEAST_FREE


def explained(error: BaseException) -> BaseException:
    """A full disk as the refusal that it is; anything else as it came."""
    full = isinstance(error, OSError) and error.errno in FULL
    return disk_full() if full else error


def unusable(error: OSError) -> Refusal | None:
    """DISK_FULL, or STATE_UNUSABLE for a file or folder that this user may not write; None where
    it is neither."""
    if error.errno in FULL:
        return disk_full()
    if error.errno not in LOCKED or not error.filename:
        return None
    return Refusal(
        Kind.NOT_ALLOWED,
        "STATE_UNUSABLE",
        f"{error.filename}: expected what user {os.geteuid()} may read and write, got: "
        f"{error.strerror}; `housecall-agent doctor --check state` says what mends it",
    )


def disk_full() -> Refusal:
    return Refusal(
        Kind.EXHAUSTED,
        "DISK_FULL",
        "disk of the agent's state: expected room to write, got none; free some and try again",
    )
