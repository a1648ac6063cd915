"""One program a state folder: whoever serves it, or changes it while nobody serves."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from housecall.errors import Kind, Refusal


def hold(folder: Path) -> IO[bytes]:
    """Until the file is closed or the process is gone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (folder / "serving.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise Refusal(
            Kind.UNAVAILABLE,
            "COORDINATOR_RUNNING",
            f"another housecall-coordinator uses {folder} already: stop that one first",
        ) from None
    return file
