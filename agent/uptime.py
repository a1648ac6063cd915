"""Time that no clock setting changes and that two processes share: seconds since the boot."""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Of this boot of the machine."""
    return _BOOT_ID.read_text().strip()


def since_boot() -> float:
    """Seconds, those asleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def elapsed(boot: str, since: float) -> float:
    """Seconds since a moment of the boot `boot`; 0 when the machine was booted meanwhile."""
    return max(0.0, since_boot() - since) if boot == boot_id() else 0.0
