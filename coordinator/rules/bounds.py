"""How much a new statement may say: the notary asks once, before the rule of its kind.

Replay does not ask. Whatever was accepted stays accepted, so a bound can be set or lowered here and
every ledger still makes the same tables; a rule has no such freedom. A bound depends on nothing but
the statement.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from coordinator.rules.executions import MOST_LINES
from coordinator.rules.fact import invalid
from housecall.errors import Refusal
from housecall.nesting import json_levels, yaml_levels
from housecall.statement import Statement
from housecall.v1 import statements_pb2 as pb

MOST_PAYLOAD_LEVELS = 32
MOST_YAML_LEVELS = 50
MOST_SCHEMA_LEVELS = 40
MOST_GROUPS = 50
"""Opening parentheses in one text of a schema: a pattern's groups nest, too."""
MOST_ITEMS = MOST_LINES
"""Of anything that a statement lists."""


def check_bounds(opened: Statement) -> None:
    """Refuses a statement that nests too deeply, lists too much or is not written in UTF-8."""
    if json_levels(_text(opened)) > MOST_PAYLOAD_LEVELS:
        raise _too_deep(opened.kind, MOST_PAYLOAD_LEVELS)
    _check_fields(opened.kind, opened.predicate)
    if check := _CHECKS.get(opened.kind):
        check(opened.predicate)


def _text(opened: Statement) -> str:
    """JSON may come in UTF-16, too: what looks for something in its bytes would miss it."""
    payload = opened.payload
    try:
        if (encoding := json.detect_encoding(payload)) != "utf-8":
            raise ValueError(encoding)
        return payload.decode()
    except ValueError as error:
        raise invalid(
            "STATEMENT_MALFORMED", f"{opened.kind}: expected JSON in UTF-8, got {error}"
        ) from error


def _check_fields(where: str, said: Message) -> None:
    for field, value in said.ListFields():
        name = f"{where}.{field.name}"
        if field.is_repeated and len(value) > MOST_ITEMS:
            code = "EXECUTIONS_TOO_MANY" if field.name.startswith("execution") else "ITEMS_TOO_MANY"
            raise invalid(code, f"{name}: expected at most {MOST_ITEMS}, got {len(value)}")
        if not field.message_type or field.message_type.full_name.startswith("google."):
            continue
        for item in value if field.is_repeated else (value,):
            _check_fields(name, item)


def _check_cancelled(said: pb.ExecutionCancelled) -> None:
    if len(set(said.execution_ids)) != len(said.execution_ids):
        raise invalid("EXECUTIONS_REPEATED", "an execution is named twice in one statement")


def _check_container(said: pb.ContainerRegistered) -> None:
    for name in ("configuration", "parameters"):
        if yaml_levels(getattr(said, name), MOST_YAML_LEVELS) > MOST_YAML_LEVELS:
            raise invalid(
                "YAML_INVALID",
                f"{name}: expected one YAML document, got values nested more than "
                f"{MOST_YAML_LEVELS} levels deep",
            )


def _check_benchmark(said: pb.BenchmarkRegistered) -> None:
    for name in ("statistics_schema", "metrics_schema"):
        text = getattr(said, name)
        if json_levels(text) > MOST_SCHEMA_LEVELS:
            raise invalid(
                "SCHEMA_INVALID",
                f"{name}: expected at most {MOST_SCHEMA_LEVELS} levels of objects and lists",
            )
        if any(each.count("(") > MOST_GROUPS for each in _texts(text)):
            raise invalid(
                "SCHEMA_INVALID",
                f"{name}: expected at most {MOST_GROUPS} groups in a pattern, or parentheses in "
                "another text",
            )


def _texts(schema: str) -> Iterator[str]:
    """Every key and text of a JSON document that nests little; none of what is no JSON."""
    try:
        left = [json.loads(schema)]
    except ValueError:
        return
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            left += value.values()
        elif isinstance(value, list):
            left += value


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "ContainerRegistered": _check_container,
    "BenchmarkRegistered": _check_benchmark,
    "ExecutionCancelled": _check_cancelled,
}


def _too_deep(where: str, most: int) -> Refusal:
    return invalid(
        "NESTED_TOO_DEEPLY",
        f"{where}: expected at most {most} levels of mappings and lists, got more",
    )
