"""The output contract: what an evaluator or a preparation wrote, checked before it can leave.

Read, then check, then suppress small counts (`suppression.py`); all but the first are pure.
Outputs may hold what must not leave, so no refusal quotes a value, and a key only if the
benchmark's schema names it: any other key shows as `*` (`output_paths.py`). Asking a person for
release is left to `release.py`.
"""

from __future__ import annotations

import datetime
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from agent.output_paths import property_names, shown
from housecall.errors import Kind, Refusal
from housecall.nesting import MOST_LEVELS
from housecall.safe_yaml import load_yaml

__all__ = ["check", "read_mapping", "validator"]

MAX_OUTPUT_BYTES = 64 * 1024
_JSON_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
    type(None): "null",
}


def read_mapping(path: Path, *, max_bytes: int = MAX_OUTPUT_BYTES) -> dict[Any, Any]:
    """The non-empty YAML mapping in an output file; raises `Refusal` OUTPUT_MISSING,
    OUTPUT_EMPTY, OUTPUT_TOO_LARGE, OUTPUT_NOT_MAPPING or OUTPUT_INVALID."""
    content = _read(path, max_bytes)
    if not content.strip():
        _refuse("OUTPUT_EMPTY", "the document", "a YAML mapping", "an empty file")
    try:
        value = load_yaml(content.decode(), "output", max_bytes=max_bytes)
    except UnicodeDecodeError:
        _refuse("OUTPUT_INVALID", "the document", "text in UTF-8", "other bytes")
    except Refusal as refusal:
        raise Refusal(Kind.INVALID, "OUTPUT_INVALID", refusal.message) from None
    if value is None or value == {}:
        _refuse("OUTPUT_EMPTY", "the document", "a mapping with entries", "none")
    if not isinstance(value, dict):
        _refuse("OUTPUT_NOT_MAPPING", "the document", "a mapping", _kind(value))
    return value


def check(
    mapping: Mapping[Any, Any], schema: Mapping[str, Any] | None, *, allow_nan: bool = False
) -> dict[str, Any]:
    """The mapping as plain JSON values that the schema (JSON Schema 2020-12) accepts, else
    `Refusal` OUTPUT_INVALID. Whole numbers as keys, such as classes, become strings; other keys
    that are no strings are refused, as are dates, and NaN and infinity without leave."""
    names = property_names(schema)
    plain: dict[str, Any] = _plain(dict(mapping), (), names, allow_nan)
    if schema is None:
        return plain
    try:
        error = best_match(validator(schema).iter_errors(plain))
    except Unresolvable:
        raise _bad_schema("references within the schema", "one that leads elsewhere") from None
    except (RecursionError, ValueError, OverflowError):
        raise _bad_schema("rules that end and apply to finite numbers", "others") from None
    if error is not None:
        _refuse("OUTPUT_INVALID", shown(error.absolute_path, names), *_expected_got(error))
    return plain


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator that reads nothing from elsewhere; raises `Refusal` SCHEMA_INVALID. To be
    called when a benchmark is registered, so that a site never meets a broken schema."""
    dialect = schema.get("$schema", Draft202012Validator.META_SCHEMA["$id"])
    if str(dialect).rstrip("#") != Draft202012Validator.META_SCHEMA["$id"]:
        raise _bad_schema("JSON Schema 2020-12", "another dialect")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise _bad_schema("JSON Schema 2020-12", f"an error at {error.json_path}") from None
    return Draft202012Validator(schema, registry=Registry())


def _read(path: Path, max_bytes: int) -> bytes:
    """Without following a link or waiting on a pipe that a container may have left there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        _refuse("OUTPUT_MISSING", "the document", "a file that can be read", "none")
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            _refuse("OUTPUT_MISSING", "the document", "a file", "something else")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        _refuse("OUTPUT_TOO_LARGE", "the document", f"at most {max_bytes} bytes", "more")
    return content


def _plain(value: Any, path: tuple[str | int, ...], names: frozenset[str], nan: bool) -> Any:
    if isinstance(value, dict | list) and len(path) == MOST_LEVELS:
        most = f"at most {MOST_LEVELS} levels of mappings and lists"
        _refuse("OUTPUT_INVALID", shown(path, names), most, "more")
    if isinstance(value, dict):
        keys = [_key(key, shown(path, names)) for key in value]
        if len(set(keys)) != len(keys):
            _refuse("OUTPUT_INVALID", shown(path, names), "keys that differ as text", "others")
        pairs = zip(keys, value.values(), strict=True)
        return {key: _plain(item, (*path, key), names, nan) for key, item in pairs}
    if isinstance(value, list):
        return [_plain(item, (*path, at), names, nan) for at, item in enumerate(value)]
    if isinstance(value, datetime.date):
        _refuse("OUTPUT_INVALID", shown(path, names), "a string in quotes", "a date")
    if type(value) not in _JSON_TYPES:
        _refuse("OUTPUT_INVALID", shown(path, names), "a JSON value", _kind(value))
    if isinstance(value, float) and not math.isfinite(value) and not nan:
        _refuse("OUTPUT_INVALID", shown(path, names), "a finite number", "NaN or infinity")
    return value


def _key(key: object, path: str) -> str:
    if not isinstance(key, str) and type(key) is not int:
        _refuse("OUTPUT_INVALID", path, "keys that are strings or whole numbers", _kind(key))
    return str(key)


def _expected_got(error: ValidationError) -> tuple[str, str]:
    """In the schema's words alone: the library's own message quotes the output."""
    rule = str(error.validator)
    value: Any = error.instance
    wanted: Any = error.validator_value
    schema: Any = error.schema
    if rule == "required":
        missing = [name for name in wanted if name not in value]
        return "the keys " + ", ".join(wanted), "none for " + ", ".join(missing)
    if rule in ("additionalProperties", "unevaluatedProperties") and isinstance(value, dict):
        known = schema.get("properties", {})
        return "only the keys " + ", ".join(known), f"{len(value.keys() - known)} others"
    if rule in ("type", "const", "enum") or isinstance(wanted, int | float | str):
        return f"{rule} {wanted}", f"{_kind(value)} that is not"
    return f"what {rule} in the schema says", f"{_kind(value)} that is not"


def _kind(value: object) -> str:
    return _JSON_TYPES.get(type(value), "another type")


def _bad_schema(expected: str, got: str) -> Refusal:
    message = f"output schema: expected {expected}, got {got}; ask the benchmark's committee"
    return Refusal(Kind.INVALID, "SCHEMA_INVALID", message)


def _refuse(code: str, path: str, expected: str, got: str) -> NoReturn:
    message = f"output: {path}: expected {expected}, got {got}; ask the container's owner"
    raise Refusal(Kind.INVALID, code, message)
