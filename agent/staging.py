"""What a step writes: beside its place until the step succeeded, then complete in its place.

A container writes into `<name>.part`. When it ended well, that is synced to the disk and renamed:
whoever looks at the place finds everything or nothing, after a power cut as well. What stands
beside the place then may be damaged: after a boot its step begins again. What a preparation works
on, run after run, is kept where it is.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.folders import output_file, output_folder
from housecall.errors import Kind, Refusal

_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Output:
    """A folder, or a `file`, that a step writes, in the end at `path`. With `kept`, every run of
    the step goes on with what the one before left there."""

    path: Path
    file: bool = False
    kept: bool = False

    @property
    def written_at(self) -> Path:
        """Where the container writes."""
        return self.path if self.kept else self.path.with_name(f"{self.path.name}.part")

    def clear(self, *, resume: bool) -> None:
        """Away with what the last try left, unless it is kept or the container goes on with it."""
        if not (self.kept or resume):
            remove(self.written_at)

    def make(self, user: str, *, resume: bool) -> None:
        """Ready for a container to write."""
        self.clear(resume=resume)
        if not self.kept:
            remove(self.path)
        if self.file:
            output_file(self.written_at, user)
        else:
            output_folder(self.written_at, user)

    def sync(self) -> None:
        """What a step wrote that did not end well survives a power cut too."""
        if self.written_at.exists():
            _sync(self.written_at)

    def deliver(self) -> int:
        """Put it in its place, whole and on disk; gives its size in bytes. Again is no harm; what
        is in neither place is refused with OUTPUT_MISSING."""
        if self.written_at.exists():
            self.sync()
            if not self.kept:
                self.written_at.replace(self.path)
                _sync(self.path.parent)
        elif not self.path.exists():
            text = f"output {self.path.name}: expected it where the container writes, got nothing"
            raise Refusal(Kind.INVALID, "OUTPUT_MISSING", f"{text}; run it again")
        return _size(self.path)


def _sync(path: Path) -> None:
    """All of the file system that holds `path`: one wait, however many files were written."""
    opened = os.open(path, os.O_RDONLY)
    try:
        if _LIBC.syncfs(opened) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(opened)


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    found = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sum(each.lstat().st_size for each in found)
