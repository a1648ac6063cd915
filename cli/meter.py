"""How far a counted piece of work is, in words: amount, rate and time left. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
PLAIN_SECONDS = 5.0


def size(count: float) -> str:
    """A number of bytes for people: `3.4 GiB`."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def duration(seconds: float) -> str:
    """`0.4 s` below a minute, else `0:01:05`, as a clock shows it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def clock_text(seconds: float) -> str:
    """`0:12`, `1:05:00`: what a clock shows that has been running so long."""
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


@dataclass
class Meter:
    """One counted piece of work. The rate counts from the first figure on, so that work taken up
    again does not look quick."""

    started_at: float
    done: int = 0
    total: int = 0
    unit: str = "bytes"
    _first: int | None = field(default=None, repr=False)
    _said_at: float = field(default=float("-inf"), repr=False)
    _said_tenth: int = field(default=-1, repr=False)

    def update(self, done: int, total: int, unit: str) -> None:
        if self._first is None:
            self._first = done
        self.done, self.total, self.unit = done, total, unit or "bytes"

    def text(self, now: float) -> str:
        seconds = now - self.started_at
        rate = (self.done - (self._first or 0)) / seconds if seconds > 0 else 0.0
        parts = [f"{self._amount(self.done)} of {self._amount(self.total)}"]
        if self.total:
            parts.append(f"{100 * self.done // self.total} %")
        if rate > 0:
            parts.append(f"{self._rate(rate)}/s")
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        return ", ".join(parts)

    def due(self, now: float) -> bool:
        """Whether a log that cannot be overwritten should say it: at each tenth, every few
        seconds, and at the end."""
        tenth = 10 * self.done // self.total if self.total else 0
        if tenth <= self._said_tenth and now - self._said_at < PLAIN_SECONDS:
            return False
        self._said_at, self._said_tenth = now, tenth
        return True

    def _amount(self, count: int) -> str:
        return size(count) if self.unit == "bytes" else f"{count} {self.unit}"

    def _rate(self, rate: float) -> str:
        return size(rate) if self.unit == "bytes" else f"{rate:.1f}"
