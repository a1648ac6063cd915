"""Folders and files that containers are given: whose they are and who may read them.

What goes into them is left to `preparation.py` and `execution.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

from housecall.errors import Kind, Refusal


def private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def output_folder(path: Path, user: str) -> Path:
    """A folder of the container's user, 0700. What it holds is kept and handed over as well: a
    person may have edited it by hand."""
    private_folder(path)
    path.chmod(0o700)
    _hand_over(path, user)
    for folder, folders, files in os.walk(path, followlinks=False):
        for name in (*folders, *files):
            _hand_over(Path(folder) / name, user)
    return path


def output_file(path: Path, user: str) -> Path:
    """A file of the container's user, 0600: empty, or as it was left."""
    path.touch(mode=0o600)
    _hand_over(path, user)
    return path


def input_file(path: Path, text: str) -> Path:
    """A file that any user may read; its folder decides who comes so far. One that is right is left
    alone: a container that was taken over may be reading it."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    path.chmod(0o644)
    return path


def empty_folder(path: Path) -> Path:
    """Stands in for an input that a container declares and the site has not."""
    path.mkdir(mode=0o755, exist_ok=True)
    path.chmod(0o755)
    return path


def _hand_over(path: Path, user: str) -> None:
    uid, gid = (int(part) for part in user.split(":"))
    status = path.lstat()
    if (status.st_uid, status.st_gid) == (uid, gid):
        return
    try:
        os.chown(path, uid, gid, follow_symlinks=False)
    except PermissionError:
        if status.st_uid == uid or os.getuid() == uid:
            return  # ours already, or edited by a person whose files we may not take over
        raise Refusal(
            Kind.NOT_READY,
            "CONTAINER_USER_NOT_ALLOWED",
            f"container user: expected {os.getuid()}:{os.getgid()}, which the agent runs as, got "
            f"{user}; leave the setting container_user empty or run the agent as root",
        ) from None
