"""A step's log at the site: appended to, rotated by size, read by its tail."""

from __future__ import annotations

import errno
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType

MAX_LOG_BYTES = 5 * 2**20
KEPT_FILES = 2
TAIL_BYTES = 4096


class StepLog:
    """Writes lines to `path`. What was there before becomes `.1`, and so on; without `rotate` it is
    written anew. A line that finds no room on the disk is left out, and counted in `lost`."""

    def __init__(self, path: Path, *, rotate: bool = True) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._size = self.lost = 0
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open(rotate=rotate)

    def __enter__(self) -> StepLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def write(self, line: str) -> None:
        try:
            if self._file is None:
                self._open(rotate=False)
            elif self._size > MAX_LOG_BYTES:
                self._open(rotate=True)
            self._append(line.encode(errors="replace") + b"\n")
        except OSError:
            self.lost += 1

    def _append(self, line: bytes) -> None:
        """The whole line or none of it."""
        assert self._file is not None
        if self._file.write(line) < len(line):
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise OSError(errno.ENOSPC, "no room for the whole line")
        self._size += len(line)

    def _open(self, *, rotate: bool) -> None:
        self._close()
        for number in range(KEPT_FILES if rotate else 0, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path.with_name(f"{self._path.name}.{number - 1}")
            newer = self._path if number == 1 else newer
            if newer.exists():
                newer.replace(older)
        self._file = FileIO(self._path, "wb")
        self._path.chmod(0o600)
        self._size = 0

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def tail(folder: Path) -> str:
    """The last lines of each log in `folder`, under its step's name."""
    parts = []
    for path in sorted(folder.glob("*.log"), key=lambda each: each.stat().st_mtime):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            parts.append(f"== {path.stem}\n{file.read().decode(errors='replace')}")
    return "\n".join(parts)
