"""A step's log at the site: appended to, rotated by size, read by its tail."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

MAX_LOG_BYTES = 5 * 2**20
KEPT_FILES = 2
TAIL_BYTES = 4096


class StepLog:
    """Writes lines to `path`. What was there before becomes `.1`, and so on; without `rotate` it is
    written anew."""

    def __init__(self, path: Path, *, rotate: bool = True) -> None:
        self._path = path
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
        self._file.close()

    def write(self, line: str) -> None:
        if self._size > MAX_LOG_BYTES:
            self._file.close()
            self._open(rotate=True)
        self._size += self._file.write(line.encode(errors="replace") + b"\n")

    def _open(self, *, rotate: bool) -> None:
        for number in range(KEPT_FILES if rotate else 0, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path.with_name(f"{self._path.name}.{number - 1}")
            newer = self._path if number == 1 else newer
            if newer.exists():
                newer.replace(older)
        self._file = self._path.open("wb", buffering=0)
        self._path.chmod(0o600)
        self._size = 0


def tail(folder: Path) -> str:
    """The last lines of each log in `folder`, under its step's name."""
    parts = []
    for path in sorted(folder.glob("*.log"), key=lambda each: each.stat().st_mtime):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            parts.append(f"== {path.stem}\n{file.read().decode(errors='replace')}")
    return "\n".join(parts)
