"""Which keys of an output may be named in words: only those that the benchmark's schema names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def shown(path: Sequence[str | int], names: frozenset[str]) -> str:
    """The path with dots, each key that is not among `names` as `*`."""
    parts = [str(key) if isinstance(key, int) or key in names else "*" for key in path]
    return ".".join(parts) or "the document"


def property_names(schema: object) -> frozenset[str]:
    """Every key that a schema names anywhere."""
    if isinstance(schema, list):
        return frozenset().union(*(property_names(part) for part in schema))
    if not isinstance(schema, Mapping):
        return frozenset()
    own = schema.get("properties")
    names = frozenset(own) if isinstance(own, Mapping) else frozenset()
    return names.union(*(property_names(part) for part in schema.values()))
