"""Wall clocks that jump: libfaketime with a file of its own for each program.

Monotonic clocks stay true, as on a machine whose clock is set. Where the library is not installed
and cannot be, programs run with the machine's clock and no clock jumps.
"""

from __future__ import annotations

from pathlib import Path

from examples import apt

PATTERN = "*/faketime/libfaketimeMT.so.1"
SHARED = Path("/dev/shm")


def library() -> Path | None:
    """None where it is not there and cannot be installed."""
    if _library() is None and apt.available():
        apt.install("faketime")
    return _library()


def _library() -> Path | None:
    return next(Path("/usr/lib").glob(PATTERN), None)


def sweep() -> None:
    """What the library left of programs that were killed: it ends one that gets such a number."""
    for file in SHARED.glob("*faketime_s[eh]m_*"):
        if not Path("/proc", file.name.rpartition("_")[2]).exists():
            file.unlink(missing_ok=True)


class WallClock:
    """One program's wall clock; `environment` is what it must be started with."""

    def __init__(self, file: Path, preload: Path | None) -> None:
        self.file, self._preload = file, preload
        self.jump(0)

    @property
    def environment(self) -> dict[str, str]:
        if self._preload is None:
            return {}
        return {
            "LD_PRELOAD": str(self._preload),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: float) -> bool:
        """So far from the true time, from now on. False where clocks cannot jump."""
        self.file.write_text(f"{seconds:+.0f}\n")
        return self._preload is not None
