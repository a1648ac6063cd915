"""What an output must be before it may leave: the benchmark's schema and the site's bounds."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

from agent.outputs import check, read_mapping
from agent.suppression import suppress_small_counts
from housecall.errors import Kind, Refusal

SECONDS = 30


def checked(path: Path, schema_text: str, *, max_bytes: int, minimum_count: int) -> dict[str, Any]:
    """The output in `path` as it may be shown: valid, small counts suppressed. Raises `Refusal`
    with one of the codes OUTPUT_... or SCHEMA_INVALID."""
    values = read_mapping(path, max_bytes=max_bytes)
    try:
        found = multiprocessing.get_context("spawn").Pool(1)
        with found as pool:
            asked = pool.apply_async(_checked, (values, schema_text, minimum_count))
            kind, *rest = asked.get(timeout=SECONDS)
    except multiprocessing.TimeoutError:
        kind, rest = (
            "refused",
            [
                "SCHEMA_INVALID",
                f"output schema: expected rules that end within {SECONDS} s, got others; "
                "ask the benchmark's committee",
            ],
        )
    if kind == "refused":
        raise Refusal(Kind.INVALID, *rest)
    values = rest[0]
    assert isinstance(values, dict)
    return values


def _checked(values: Any, schema_text: str, minimum_count: int) -> tuple[Any, ...]:
    """In a process of its own: a schema's patterns can run for years, and hold every thread."""
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
