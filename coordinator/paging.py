"""Lists in pages: rows in ledger order, each page's token is the key of its last row. A page ends
where it has as many rows as were asked for, or as many bytes as a client takes with one more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlmodel import SQLModel, col

from coordinator.models import Dataset, JoinToken, Participant
from coordinator.store import Reader
from housecall.errors import Kind, Refusal
from housecall.rpc import MAX_MESSAGE_BYTES

Row = TypeVar("Row", bound=SQLModel)

Shown = TypeVar("Shown", bound=Message)

LARGEST_PAGE = 1000
PAGE_BYTES = MAX_MESSAGE_BYTES // 2
"""An item has some 2 MiB at most: it comes of two envelopes."""
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
    show: Callable[[Row], Shown],
) -> tuple[list[Shown], str]:
    """Up to a page of visible rows as messages, and the token of the next page."""
    size = min(request.page_size or 100, LARGEST_PAGE)
    key = _KEYS.get(table, "id")
    order = col(getattr(table, key))
    after = _read_token(request.page_token)
    shown: list[Shown] = []
    room = PAGE_BYTES
    wanted = {name: value for name, value in where.items() if value}
    while batch := reader.page(table, order, after, size, **wanted):
        for row in batch:
            after = getattr(row, key)
            if visible(row):
                shown.append(message := show(row))
                room -= message.ByteSize()
                if len(shown) == size or room <= 0:
                    return shown, str(after)
    return shown, ""


def _read_token(token: str) -> int | None:
    if token and not token.isdecimal():
        raise Refusal(
            Kind.INVALID, "PAGE_TOKEN_INVALID", f"page_token: expected one given out, got {token!r}"
        )
    return int(token) if token else None


def everyone(_row: SQLModel) -> bool:
    """For lists that hide nothing."""
    return True
