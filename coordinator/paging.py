"""Lists in pages: rows in ledger order, each page's token is the key of its last row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlmodel import SQLModel, col

from coordinator.models import Dataset, JoinToken, Participant
from coordinator.store import Reader
from housecall.errors import Kind, Refusal

Row = TypeVar("Row", bound=SQLModel)

LARGEST_PAGE = 1000
_KEYS: dict[type[SQLModel], str] = {
    Dataset: "ledger_index",
    Participant: "enrolled_index",
    JoinToken: "issued_index",
}
"""What orders a table where its `id` does not."""


def page(
    reader: Reader,
    table: type[Row],
    request: Any,
    visible: Callable[[Row], bool],
    where: dict[str, Any],
) -> tuple[list[Row], str]:
    """Up to a page of visible rows, and the token of the next page."""
    size = min(request.page_size or 100, LARGEST_PAGE)
    key = _KEYS.get(table, "id")
    order = col(getattr(table, key))
    after = _read_token(request.page_token)
    rows: list[Row] = []
    wanted = {name: value for name, value in where.items() if value}
    while batch := reader.page(table, order, after, size, **wanted):
        for row in batch:
            after = getattr(row, key)
            if visible(row):
                rows.append(row)
                if len(rows) == size:
                    return rows, str(after)
    return rows, ""


def _read_token(token: str) -> int | None:
    if token and not token.isdecimal():
        raise Refusal(
            Kind.INVALID, "PAGE_TOKEN_INVALID", f"page_token: expected one given out, got {token!r}"
        )
    return int(token) if token else None


def everyone(_row: SQLModel) -> bool:
    """For lists that hide nothing."""
    return True
