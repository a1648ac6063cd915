"""The report that a preparation container keeps: cases by their status, for people at the site.

The shape is that of pandas' `DataFrame.to_dict()`: `{status: {case: int}, status_name: {case:
str}, ...}`. Only the numbers of cases are taken from it; cases and comments stay in the file.

What others may be told, `shares`, is less: no number, and no name that few cases have, that does
not look like a status, or that is a case's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.outputs import read_mapping
from housecall.errors import Refusal
from housecall.shares import MOST_NAMES, OTHER, is_status

MAX_REPORT_BYTES = 16 * 2**20
MAX_STATUSES = 100


def cases(path: Path) -> dict[str, int]:
    """Cases per status name; empty when there is no report that can be read."""
    try:
        table = read_mapping(path, max_bytes=MAX_REPORT_BYTES)
    except Refusal:
        return {}
    return dict(_counted(table).most_common(MAX_STATUSES))


def shares(path: Path, least: int) -> dict[str, int] | None:
    """Whole percentages of cases by status name. Empty when there are fewer cases than `least`;
    None when there is no report that can be read."""
    try:
        table = read_mapping(path, max_bytes=MAX_REPORT_BYTES)
    except Refusal:
        return None
    counted = _counted(table)
    total = counted.total()
    if total < least:
        return {}
    listed = {str(case) for column in table.values() if isinstance(column, dict) for case in column}
    lawful = [
        (name, number)
        for name, number in counted.most_common()
        if number >= least and is_status(name) and name not in listed
    ]
    told = Counter(dict(lawful[:MOST_NAMES]))
    told[OTHER] += total - told.total()
    return {name: round(100 * number / total) for name, number in told.items() if number}


def _counted(table: Mapping[Any, Any]) -> Counter[str]:
    status, names = table.get("status"), table.get("status_name")
    if not isinstance(status, dict):
        return Counter()
    names = names if isinstance(names, dict) else {}
    return Counter(str(names.get(case, value))[:100] for case, value in status.items())
