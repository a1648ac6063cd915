"""What an output must be before it may leave: the benchmark's schema and the site's bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.outputs import check, read_mapping
from agent.suppression import suppress_small_counts
from housecall.errors import Kind, Refusal


def checked(path: Path, schema_text: str, *, max_bytes: int, minimum_count: int) -> dict[str, Any]:
    """The output in `path` as it may be shown: valid, small counts suppressed. Raises `Refusal`
    with one of the codes OUTPUT_... or SCHEMA_INVALID."""
    schema = _schema(schema_text)
    values = check(read_mapping(path, max_bytes=max_bytes), schema)
    return suppress_small_counts(values, schema, minimum_count)[0]


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
