"""What an output must be before it may leave: the benchmark's schema and the site's bounds."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import threading
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from agent.outputs import check, read_mapping
from agent.suppression import suppress_small_counts
from housecall.errors import Kind, Refusal

SECONDS = 30


class _Checker:
    """A process of its own that applies schemas: a schema's patterns can run for years, and would
    hold every thread of the agent. It is kept, and replaced when it did not answer in time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: Pool | None = None

    def ask(self, *question: Any) -> tuple[Any, ...]:
        with self._lock:
            if self._pool is None:
                self._pool = multiprocessing.get_context("spawn").Pool(1)
            try:
                answer = self._pool.apply_async(_checked, question).get(timeout=SECONDS)
            except multiprocessing.TimeoutError:
                self._end()
                return (
                    "refused",
                    "SCHEMA_INVALID",
                    f"output schema: expected rules that end within {SECONDS} s, got others; ask "
                    "the benchmark's committee",
                )
        assert isinstance(answer, tuple)
        return answer

    def close(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()
            self._pool = None


_CHECKER = _Checker()
atexit.register(_CHECKER.close)


def checked(path: Path, schema_text: str, *, max_bytes: int, minimum_count: int) -> dict[str, Any]:
    """The output in `path` as it may be shown: valid, small counts suppressed. Raises `Refusal`
    with one of the codes OUTPUT_... or SCHEMA_INVALID."""
    values = read_mapping(path, max_bytes=max_bytes)
    kind, *rest = _CHECKER.ask(values, schema_text, minimum_count)
    if kind == "refused":
        raise Refusal(Kind.INVALID, *rest)
    accepted = rest[0]
    assert isinstance(accepted, dict)
    return accepted


def _checked(values: Any, schema_text: str, minimum_count: int) -> tuple[Any, ...]:
    """What the checker's process does."""
    try:
        schema = _schema(schema_text)
        return "ok", suppress_small_counts(check(values, schema), schema, minimum_count)[0]
    except Refusal as refusal:
        return "refused", refusal.code, refusal.message


def _schema(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        schema = json.loads(text)
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise Refusal(
            Kind.INVALID,
            "SCHEMA_INVALID",
            "output schema: expected a JSON object, got something else; "
            "ask the benchmark's committee",
        )
    return schema
