"""How much a new statement may say: the notary asks once, before the rule of its kind.

Replay does not ask. Whatever was accepted stays accepted, so a bound can be set or lowered here and
every ledger still makes the same tables; a rule has no such freedom. A bound depends on nothing but
the statement.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from coordinator.rules.executions import MOST_LINES
from coordinator.rules.fact import MOST_DESCRIPTION, invalid
from housecall.errors import Refusal
from housecall.identity import spiffe_id, split_id
from housecall.nesting import MOST_LEVELS, json_levels, levels_of, values, yaml_levels
from housecall.statement import Statement
from housecall.v1 import statements_pb2 as pb

MOST_PAYLOAD_LEVELS = 32
MOST_YAML_LEVELS = 50
MOST_SCHEMA_LEVELS = 40
MOST_GROUPS = 50
"""Opening parentheses in one text of a schema: a pattern's groups nest, too."""
MOST_ITEMS = MOST_LINES
"""Of anything that a statement lists."""
MOST_DIGITS = 9
"""Of a dataset's number: its id is in indexes, and in notes between replicas."""
TOKEN_ID_CHARACTERS = 16

_VERBATIM = frozenset({"configuration", "parameters", "statistics_schema", "metrics_schema"})
"""Documents, which have bounds of their own."""


def check_bounds(opened: Statement) -> None:
    """Refuses a statement that nests too deeply, lists too much, has a text that is too
    long, or is not written in UTF-8."""
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
        for item in value if field.is_repeated else (value,):
            if isinstance(item, str) and field.name not in _VERBATIM:
                _check_length(name, item, MOST_DESCRIPTION)
            elif isinstance(item, Struct):
                _check_struct(name, item)
            elif field.message_type and not field.message_type.full_name.startswith("google."):
                _check_fields(name, item)


def _check_struct(where: str, struct: Struct) -> None:
    if levels_of(struct) > MOST_LEVELS:
        raise _too_deep(where, MOST_LEVELS)
    if not all(math.isfinite(value.number_value) for _, value in values(struct)):
        raise invalid("VALUE_UNSTORABLE", f"{where}: expected finite numbers")


def _check_length(where: str, text: str, most: int) -> None:
    if len(text) > most:
        message = f"{where}: expected at most {most} characters, got {len(text)}"
        raise invalid("FIELD_TOO_LONG", message)


def _check_token(said: pb.JoinTokenIssued) -> None:
    """Token and name are in indexes."""
    _check_length("JoinTokenIssued.token_id", said.token_id, TOKEN_ID_CHARACTERS)
    _, kind, short = split_id(said.name)
    if kind != "coordinator":
        spiffe_id("", kind, short)


def _check_dataset(said: pb.DatasetRegistered) -> None:
    digits = len(said.dataset_id.partition("/")[2])
    if digits > MOST_DIGITS:
        raise invalid(
            "DATASET_ID_INVALID",
            f"dataset id: expected a number of at most {MOST_DIGITS} digits, got {digits}",
        )


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
    "JoinTokenIssued": _check_token,
    "DatasetRegistered": _check_dataset,
    "ContainerRegistered": _check_container,
    "BenchmarkRegistered": _check_benchmark,
    "ExecutionCancelled": _check_cancelled,
}


def _too_deep(where: str, most: int) -> Refusal:
    return invalid(
        "NESTED_TOO_DEEPLY",
        f"{where}: expected at most {most} levels of mappings and lists, got more",
    )
