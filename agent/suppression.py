"""Suppression of small counts in outputs, where the benchmark's schema marks them as counts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry

from agent.output_paths import property_names, shown

COUNT_MARK = "x-housecall-count"


def suppress_small_counts(
    mapping: Mapping[str, Any], schema: Mapping[str, Any] | None, minimum: int
) -> tuple[dict[str, Any], list[str]]:
    """A copy in which each number that the schema marks `"x-housecall-count": true` and that is
    below `minimum` (zero too: an absence also tells) is replaced by `{"suppressed": "<5"}`, here
    for a minimum of 5, and the paths of those. For values that `check` accepted. A count that
    follows from a total and its other parts is not recognised: leave such totals out."""
    result: dict[str, Any] = copy.deepcopy(dict(mapping))
    if schema is None or minimum <= 0:
        return result, []
    marked = {tuple(path) for path in _small_counts(result, schema, minimum)}
    for path in marked:
        parent: Any = result
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = {"suppressed": f"<{minimum}"}
    return result, sorted(shown(path, property_names(schema)) for path in marked)


def _small_counts(
    value: object, schema: Mapping[str, Any], minimum: int
) -> Iterator[Sequence[str | int]]:
    """A validator whose only complaint is a small count; it looks into every branch that
    could apply, so that no alternative hides a mark."""

    def small(_: Any, marked: object, instance: object, __: Any) -> Iterator[ValidationError]:
        number = isinstance(instance, int | float) and not isinstance(instance, bool)
        if marked is True and number and not instance >= minimum:  # type: ignore[operator]
            yield ValidationError("small")

    def every(check: Any, parts: Any, instance: object, whole: Any) -> Iterator[ValidationError]:
        branches = parts if isinstance(parts, list) else [parts]
        for branch in [*branches, *(whole.get(key, True) for key in ("then", "else"))]:
            yield from check.descend(instance, branch)

    rules = {COUNT_MARK: small, "anyOf": every, "oneOf": every, "if": every}
    finder = extend(Draft202012Validator, rules)(schema, registry=Registry())  # type: ignore[no-untyped-call]
    for error in finder.iter_errors(value):
        if error.validator == COUNT_MARK:
            yield list(error.absolute_path)
