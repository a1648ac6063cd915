"""Whether a container's processes run, by the kernel's word: where the engine lost sight of them.

A process names its container in its control group's path. The kernel shows processes of the own
and of inner process namespaces: the engine's are among them if its socket's peer has a number here.

An engine that is killed between making a container and starting it leaves a process of runc's that
waits for the start. Nobody will give it: nothing of the container runs.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from pathlib import Path

from agent.engines.docker.connection import dialled

WAITING = "runc:[2:INIT]"
_CREDENTIALS = struct.Struct("3i")


def may_run(container_id: str, engine: Path | None) -> bool:
    """False only where it can be seen that none of the container's processes is there, or none that
    began. `engine` is the engine's socket, None when it is reached over a network."""
    if engine is None or not _is_visible(engine):
        return True
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                inside = container_id in (process / "cgroup").read_text()
                if inside and not waits(process):
                    return True
    return False


def waits(process: Path) -> bool:
    """It was made for a container and never told to begin."""
    return (process / "comm").read_text().rstrip() == WAITING


def _is_visible(engine: Path) -> bool:
    """The number of who listens is 0 where it is in another process namespace (unix(7))."""
    try:
        with dialled(engine) as probe:
            said = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return False
    return bool(_CREDENTIALS.unpack(said)[0])
