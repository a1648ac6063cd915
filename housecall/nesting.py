"""How deeply texts and values are nested: counted, and never found out by running out of stack."""

from __future__ import annotations

import re

import yaml

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
