"""How deeply texts and values are nested: counted, and never found out by running out of stack."""

from __future__ import annotations

import re

import yaml
from google.protobuf.struct_pb2 import Struct, Value

MOST_LEVELS = 16
"""Of mappings and lists in metrics and statistics that leave a site."""
READABLE_LEVELS = 30
"""A message has room for 100 levels, a mapping takes three, and lists have a few around it."""

_MARK = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def json_levels(text: str) -> int:
    """Of objects and arrays in a JSON text; of another text, a number that says nothing."""
    most = levels = 0
    for mark in _MARK.finditer(text):
        if mark[0] in "[{":
            levels += 1
            most = max(most, levels)
        elif mark[0] in "]}":
            levels -= 1
    return most


def yaml_levels(text: str, enough: int) -> int:
    """Of mappings and sequences in a YAML document; no further than one more than `enough`, nor
    than where it is no YAML."""
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    most = levels = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.CollectionStartEvent):
                levels += 1
                most = max(most, levels)
                if most > enough:
                    return most
            elif isinstance(event, yaml.CollectionEndEvent):
                levels -= 1
    except (yaml.YAMLError, ValueError):
        pass
    return most


def values(struct: Struct) -> list[tuple[int, Value]]:
    """Every value in it, each with the number of mappings and lists around it."""
    found: list[tuple[int, Value]] = []
    left = [(1, struct.fields[name]) for name in struct.fields]
    while left:
        levels, value = left.pop()
        found.append((levels, value))
        if value.HasField("struct_value"):
            fields = value.struct_value.fields
            left += [(levels + 1, fields[name]) for name in fields]
        elif value.HasField("list_value"):
            left += [(levels + 1, each) for each in value.list_value.values]
    return found


def levels_of(struct: Struct) -> int:
    """Of mappings and lists, itself included; an empty one inside counts as well."""
    return max(
        (
            levels + (value.WhichOneof("kind") in ("struct_value", "list_value"))
            for levels, value in values(struct)
        ),
        default=1,
    )
