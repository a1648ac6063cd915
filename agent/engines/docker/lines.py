"""A container's log, from the bytes the engine sends to bounded lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.engines.port import MAX_LOG_LINE_BYTES


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Text lines of a byte stream, the long ones in pieces, the unreadable replaced."""
    rest, limit = b"", MAX_LOG_LINE_BYTES
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield from _pieces(line.removesuffix(b"\r")) or [""]
        if len(rest) >= limit:
            cut = len(rest) - len(rest) % limit
            yield from _pieces(rest[:cut])
            rest = rest[cut:]
    yield from _pieces(rest)


def _pieces(line: bytes) -> list[str]:
    size = MAX_LOG_LINE_BYTES
    return [line[at : at + size].decode(errors="replace") for at in range(0, len(line), size)]
