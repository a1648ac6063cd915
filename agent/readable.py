"""Whether containers can read a site's data: they run as another user than the agent may.

Told at registration, when a person can still change it, and not by a container's stack trace.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from housecall.errors import Kind, Refusal


def require_readable(label: str, folder: Path, user: str) -> None:
    """Refuses with DATA_UNREADABLE, naming the first file or folder that `user` (uid:gid) cannot
    read by its mode bits. What lies above the folder does not matter: it is mounted by itself."""
    uid, gid = (int(part) for part in user.split(":"))
    if uid == os.getuid():
        return
    for path in _below(folder):
        status = path.stat()
        needed = 5 if stat.S_ISDIR(status.st_mode) else 4
        if _bits(status, uid, gid) & needed != needed:
            raise Refusal(
                Kind.NOT_READY,
                "DATA_UNREADABLE",
                f"{label} {path}: expected it readable for the containers' user {user}, got mode "
                f"{stat.filemode(status.st_mode)}; change its mode or owner, or the agent's "
                "setting container_user",
            )


def _below(folder: Path) -> Iterator[Path]:
    yield folder
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(parent, name)


def _bits(status: os.stat_result, uid: int, gid: int) -> int:
    """rwx as a number, of the class that the user falls into."""
    if status.st_uid == uid:
        return status.st_mode >> 6 & 7
    if status.st_gid == gid:
        return status.st_mode >> 3 & 7
    return status.st_mode & 7
