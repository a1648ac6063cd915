"""Root does the agent's work as the agent: what is made belongs to who owns the state folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_owner(state: Path) -> Iterator[None]:
    """While it is entered, root is the owner of this folder, with the group of the folder and no
    other. Nothing changes for anybody else, for a folder of root's, and for none."""
    found = state.stat() if os.geteuid() == 0 and state.is_dir() else None
    if found is None or found.st_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
