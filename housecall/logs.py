"""One format of log lines for every program: what happened, and the ids of what it happened to.

A call says `log.info("order written down", extra={"order": 7})`: a fixed text, everything that
changes as fields; never data, never a path of a site's data, never a secret. `json` is one object
a line, `text` the same for people. Under systemd the journal keeps the time, and is given the level
in the form that it reads (`<6>`; sd-daemon(3)).
"""

from __future__ import annotations

import abc
import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

Format = Literal["text", "json"]
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_SYSLOG = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class _Lines(logging.Formatter, abc.ABC):
    """`journal`: the lines go to systemd's."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        line = self._line(record)
        if not self._journal:
            return line
        level = next((number for least, number in _SYSLOG if record.levelno >= least), 7)
        return "\n".join(f"<{level}>{each}" for each in line.splitlines())

    @abc.abstractmethod
    def _line(self, record: logging.LogRecord) -> str:
        """Without its level."""

    def _time(self, record: logging.LogRecord) -> str:
        """RFC 3339, in UTC; "" where the journal keeps it."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return "" if self._journal else at.replace("+00:00", "Z")


class JsonLines(_Lines):
    def _line(self, record: logging.LogRecord) -> str:
        line = {
            "time": self._time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if value != ""}, default=str)


class TextLines(_Lines):
    def _line(self, record: logging.LogRecord) -> str:
        words = [self._time(record), record.levelname.lower(), record.name, record.getMessage()]
        words += [f"{name}={_quoted(value)}" for name, value in _fields(record).items()]
        line = " ".join(word for word in words if word)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str, form: Format) -> None:
    """Every log line of this program to standard error, in one format."""
    handler = logging.StreamHandler(sys.stderr)
    lines = JsonLines if form == "json" else TextLines
    handler.setFormatter(lines(journal=to_journal(sys.stderr)))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it names its plugins at each start


def to_journal(stream: TextIO) -> bool:
    """Whether it is the one that systemd connected to its journal (systemd.exec(5))."""
    said = os.environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(stream.fileno())
    except OSError:
        return False
    return said == f"{found.st_dev}:{found.st_ino}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _quoted(value: Any) -> str:
    """As it is where it is one word, else as a JSON string: a line stays one line."""
    text = str(value)
    plain = text.isprintable() and not any(each in text for each in ' "=')
    return text if text and plain else json.dumps(text)
