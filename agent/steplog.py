"""A step's log at the site: one a try, bounded in size, read by its tail."""

from __future__ import annotations

from io import FileIO
from pathlib import Path
from types import TracebackType

MAX_LOG_BYTES = 5 * 2**20
KEPT_FILES = 5
TAIL_BYTES = 4096


def set_aside(path: Path) -> None:
    """What is at `path` becomes `.1`, and so on: another try begins."""
    _before(path).unlink(missing_ok=True)
    for number in range(KEPT_FILES, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if newer.exists():
            newer.replace(older)


def _before(path: Path) -> Path:
    """What was cut off the beginning of a log that became too long."""
    return path.with_name(f"{path.name}.before")


class StepLog:
    """Writes lines to `path`, anew: who follows a container has its log from the first line. A line
    that cannot be written is left out, and counted in the log: no log ends its step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._size = self._left_out = 0

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
            self._append(line)
        except OSError:
            self._left_out += 1

    def _append(self, line: str) -> None:
        if self._file is None:
            self._open()
        elif self._size > MAX_LOG_BYTES:
            self._close()
            self._path.replace(_before(self._path))
            self._open()
        assert self._file is not None
        notice = f"\n({self._left_out} lines could not be written)\n" if self._left_out else ""
        content = f"{notice}{line}\n".encode(errors="replace")
        written = self._file.write(content)
        self._size += written
        self._left_out = int(written < len(content))

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._path.open("wb", buffering=0)
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
