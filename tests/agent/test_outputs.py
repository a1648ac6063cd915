"""The output contract: what is refused, in which words, and that no value is ever quoted."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.outputs import check, read_mapping, validator
from agent.suppression import suppress_small_counts
from housecall.errors import Kind, Refusal

SECRET = "Jane-Doe-1968"
TELL = "; ask the container's owner"


def refusal_of(*arguments: Any, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        check(*arguments, **options)
    assert SECRET not in str(refused.value)
    return refused.value


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", "OUTPUT_EMPTY", "the document: expected a YAML mapping, got an empty file"),
        (b" \n", "OUTPUT_EMPTY", "the document: expected a YAML mapping, got an empty file"),
        (b"# none\n", "OUTPUT_EMPTY", "the document: expected a mapping with entries, got none"),
        (b"{}", "OUTPUT_EMPTY", "the document: expected a mapping with entries, got none"),
        (b"- 1", "OUTPUT_NOT_MAPPING", "the document: expected a mapping, got array"),
        (b"2020-01-01", "OUTPUT_NOT_MAPPING", "the document: expected a mapping, got another type"),
        (b"a: '\xff'", "OUTPUT_INVALID", "the document: expected text in UTF-8, got other bytes"),
        (
            b"a: " + b"x" * 100,
            "OUTPUT_TOO_LARGE",
            "the document: expected at most 64 bytes, got more",
        ),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, code: str, message: str) -> None:
    path = tmp_path / "results.yaml"
    path.write_bytes(content)
    with pytest.raises(Refusal) as refused:
        read_mapping(path, max_bytes=64)
    assert (refused.value.code, refused.value.kind) == (code, Kind.INVALID)
    assert refused.value.message == f"output: {message}{TELL}"


def test_broken_yaml_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "results.yaml"
    for text in (f"a: [{SECRET}", f"a: *{SECRET}", f"{SECRET}: 1\n{SECRET}: 2"):
        path.write_text(text)
        with pytest.raises(Refusal) as refused:
            read_mapping(path)
        assert refused.value.code == "OUTPUT_INVALID"
        assert refused.value.message.startswith("output: expected one YAML document, got a ")
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize("layer", [lambda value: {SECRET: value}, lambda value: [value]])
def test_values_nest_so_far_and_no_further(layer: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(15):
        value = layer(value)
    assert check({"a": value}, None) == {"a": value}
    refusal = refusal_of({"a": layer(value)}, None)
    assert refusal.code == "OUTPUT_INVALID"
    assert "expected at most 16 levels of mappings and lists, got more" in refusal.message


def test_only_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").write_text("a: 1")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "folder", "link", "pipe"):
        with pytest.raises(Refusal) as refused:
            read_mapping(tmp_path / name)
        assert refused.value.code == "OUTPUT_MISSING"
    assert read_mapping(tmp_path / "target") == {"a": 1}


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "auc": {"type": "number", "minimum": 0, "maximum": 1},
        "cases": {"type": "integer", "x-housecall-count": True},
        "level": {"enum": ["low", "high"]},
        "name": {"type": "string", "maxLength": 3},
        "by_class": {
            "type": "object",
            "additionalProperties": {"$ref": "#/$defs/part"},
        },
        "rows": {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 3},
    },
    "required": ["auc"],
    "additionalProperties": False,
    "$defs": {
        "part": {
            "type": "object",
            "properties": {
                "n": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/count"}]},
                "share": {"type": "number"},
            },
        },
        "count": {"type": "integer", "minimum": 0, "x-housecall-count": True},
    },
}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"auc": SECRET}, "auc: expected type number, got string that is not"),
        ({"auc": True}, "auc: expected type number, got boolean that is not"),
        ({"auc": 1968.5}, "auc: expected maximum 1, got number that is not"),
        (
            {"auc": 1, "level": SECRET},
            "level: expected enum ['low', 'high'], got string that is not",
        ),
        ({"auc": 1, "name": SECRET}, "name: expected maxLength 3, got string that is not"),
        ({"cases": 1}, "the document: expected the keys auc, got none for auc"),
        (
            {"auc": 1, SECRET: 2},
            "the document: expected only the keys auc, cases, level, name, by_class, rows, "
            "got 1 others",
        ),
        (
            {"auc": 1, "by_class": {SECRET: {"n": SECRET}}},
            "by_class.*.n: expected what anyOf in the schema says, got string that is not",
        ),
        (
            {"auc": 1, "rows": [{}, {"share": SECRET}]},
            "rows.1.share: expected type number, got string that is not",
        ),
        ({"auc": math.nan}, "auc: expected a finite number, got NaN or infinity"),
        ({"auc": -math.inf}, "auc: expected a finite number, got NaN or infinity"),
    ],
)
def test_what_the_schema_refuses(mapping: dict[str, Any], message: str) -> None:
    refusal = refusal_of(mapping, SCHEMA)
    assert refusal.message == f"output: {message}{TELL}"
    assert (refusal.code, refusal.kind) == ("OUTPUT_INVALID", Kind.INVALID)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day: 2020-01-01", "*: expected a string in quotes, got a date"),
        ("at: 2020-01-01T00:00:00Z", "*: expected a string in quotes, got a date"),
        ("a: !!binary aGk=", "*: expected a JSON value, got another type"),
        ("a: !!set {x}", "*: expected a JSON value, got another type"),
        ("a: {true: 1}", "*: expected keys that are strings or whole numbers, got boolean"),
        ("2.5: 1", "the document: expected keys that are strings or whole numbers, got number"),
        ("{1: a, '1': b}", "the document: expected keys that differ as text, got others"),
        ("a: [.nan]", "*.0: expected a finite number, got NaN or infinity"),
    ],
)
def test_what_is_not_json(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.yaml"
    path.write_text(text)
    assert refusal_of(read_mapping(path), None).message == f"output: {message}{TELL}"


def test_classes_as_keys_become_strings_and_nan_may_be_allowed() -> None:
    checked = check({0: {"auc": math.nan}, "x": [None, True]}, None, allow_nan=True)
    assert list(checked) == ["0", "x"]
    assert math.isnan(checked["0"]["auc"])
    assert math.isnan(check({"auc": math.nan}, SCHEMA, allow_nan=True)["auc"])


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "numbr"}, "expected JSON Schema 2020-12, got an error at $.type"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "expected JSON Schema 2020-12, got another dialect",
        ),
        (
            {"properties": {"a": {"$ref": "https://example.org/x"}}},
            "expected references within the schema, got one that leads elsewhere",
        ),
        ({"$ref": "file:///etc/passwd"}, "expected references within the schema, got one that"),
        ({"$ref": "#"}, "expected rules that end and apply to finite numbers, got others"),
    ],
)
def test_schemas_that_are_refused(schema: dict[str, Any], message: str) -> None:
    refusal = refusal_of({"a": 1}, schema)
    assert refusal.message.startswith(f"output schema: {message}")
    assert refusal.code == "SCHEMA_INVALID"


def test_an_own_dialect_name_is_accepted() -> None:
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    assert validator({**dialect, **SCHEMA}).is_valid({"auc": 1})


def test_small_counts_are_marked() -> None:
    mapping = {
        "auc": 0.5,
        "cases": 4,
        "by_class": {SECRET: {"n": 2, "share": 0.1}, "b": {"n": 5}},
        "rows": [{"n": 0}, {"n": 9}],
    }
    result, suppressed = suppress_small_counts(check(mapping, SCHEMA), SCHEMA, 5)
    assert result == {
        "auc": 0.5,
        "cases": {"suppressed": "<5"},
        "by_class": {SECRET: {"n": {"suppressed": "<5"}, "share": 0.1}, "b": {"n": 5}},
        "rows": [{"n": {"suppressed": "<5"}}, {"n": 9}],
    }
    assert suppressed == ["by_class.*.n", "cases", "rows.0.n"]
    assert mapping["cases"] == 4


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"n": {"x-housecall-count": True}}},
        {"properties": {"n": {"allOf": [{"x-housecall-count": True}]}}},
        {"properties": {"n": {"oneOf": [{"x-housecall-count": True}, {"type": "null"}]}}},
        {"additionalProperties": {"x-housecall-count": True}},
        {"patternProperties": {"^n": {"x-housecall-count": True}}},
        {"if": {"required": ["m"]}, "else": {"properties": {"n": {"x-housecall-count": True}}}},
        {"if": {"required": ["n"]}, "then": {"properties": {"n": {"x-housecall-count": True}}}},
    ],
)
def test_a_mark_counts_wherever_the_schema_has_it(schema: dict[str, Any]) -> None:
    for small in (1, 0, -3, 2.0, math.nan):
        assert suppress_small_counts({"n": small}, schema, 3)[0] == {"n": {"suppressed": "<3"}}
    for other in (3, 4.0, True, None, "1"):
        assert suppress_small_counts({"n": other}, schema, 3) == ({"n": other}, [])


def test_nothing_is_suppressed_without_leave_or_mark() -> None:
    assert suppress_small_counts({"n": 1}, None, 5) == ({"n": 1}, [])
    assert suppress_small_counts({"cases": 1}, SCHEMA, 0) == ({"cases": 1}, [])
    assert suppress_small_counts({"n": 1}, {"properties": {"n": {}}}, 5) == ({"n": 1}, [])
