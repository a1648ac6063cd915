"""Cases by status in whole percent: what a site may tell of them, and all that a coordinator takes.

A name is told when it looks like a word for a status; there are few of them. Whatever else there
is counts as OTHER.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MOST_NAMES = 20
OTHER = "other"
_STATUS = re.compile(r"[A-Za-z][A-Za-z0-9 _-]{0,39}")


def is_status(name: str) -> bool:
    return _STATUS.fullmatch(name) is not None


def bounded(shares: Mapping[str, int]) -> dict[str, int]:
    """Without what no site may tell."""
    lawful = {name: share for name, share in shares.items() if is_status(name) and share <= 100}
    return {name: lawful[name] for name in sorted(lawful)[: MOST_NAMES + 1]}
