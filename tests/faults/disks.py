"""Small disks that fill up, and files that are damaged."""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import suppress
from pathlib import Path

BALLAST = "ballast"
CHUNK = 64 * 1024


class Disk:
    """A tmpfs at `path`; without the right to mount one it is a folder that cannot be filled."""

    def __init__(self, path: Path, megabytes: int, *, mode: str = "0755", uid: int = 0) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        options = f"size={megabytes}m,mode={mode},uid={uid},gid={uid}"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        done = subprocess.run(mount, capture_output=True, check=False)
        self.small = done.returncode == 0
        if not self.small:
            path.chmod(int(mode, 8))
            os.chown(path, uid, uid)

    def fill(self, leave: int) -> bool:
        """Until `leave` bytes are free, or less. False where there is no disk of its own."""
        if not self.small:
            return False
        room = os.statvfs(self.path)
        size = max(0, room.f_bavail * room.f_frsize - leave)
        with suppress(OSError), (self.path / BALLAST).open("wb", buffering=0) as ballast:
            while size > 0:
                size -= ballast.write(bytes(min(size, CHUNK)))
        return True

    def free(self) -> None:
        (self.path / BALLAST).unlink(missing_ok=True)

    def copy_out(self, to: Path) -> None:
        """What is on it, for whoever looks at it later."""
        self.free()
        to.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", f"{self.path}/.", str(to)], check=False, capture_output=True)

    def close(self) -> None:
        if self.small:
            subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)
            self.small = False


def unmount_below(folder: Path) -> None:
    """Everything that is mounted there, the deepest first: a killed engine leaves its mounts."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for path in sorted((path for path in mounted if _below(Path(path), folder)), reverse=True):
        subprocess.run(["umount", "-l", path], check=False, capture_output=True)


def _below(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder.resolve())


def damage(file: Path, choice: random.Random) -> str:
    """Truncated, or some bytes in it turned. What was done, "" when it is gone."""
    with suppress(OSError):
        size = file.stat().st_size
        if not size or choice.random() < 0.5:
            os.truncate(file, choice.randrange(size) if size else 0)
            return "truncated"
        with file.open("r+b") as handle:
            handle.seek(choice.randrange(size))
            at = handle.tell()
            byte = handle.read(1)
            handle.seek(at)
            handle.write(bytes([byte[0] ^ 0xFF]))
        return "turned"
    return ""
