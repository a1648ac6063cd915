"""A clock that is wrong, in place of `datetime` in one module."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo


def ahead(by: timedelta) -> type[datetime]:
    """`datetime` by a clock that is ahead by so much, or behind where that is negative."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    return Wrong
