"""The report that a preparation container keeps: cases by their status, for people at the site.

The shape is that of pandas' `DataFrame.to_dict()`: `{status: {case: int}, status_name: {case:
str}, ...}`. Only the numbers of cases are taken from it; cases and comments stay in the file.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from agent.outputs import read_mapping
from housecall.errors import Refusal

MAX_REPORT_BYTES = 16 * 2**20
MAX_STATUSES = 100


def cases(path: Path) -> dict[str, int]:
    """Cases per status name; empty when there is no report that can be read."""
    try:
        table = read_mapping(path, max_bytes=MAX_REPORT_BYTES)
    except Refusal:
        return {}
    status, names = table.get("status"), table.get("status_name")
    if not isinstance(status, dict):
        return {}
    names = names if isinstance(names, dict) else {}
    counted = Counter(str(names.get(case, value))[:100] for case, value in status.items())
    return dict(counted.most_common(MAX_STATUSES))
