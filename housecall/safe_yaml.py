"""YAML from others, read without trust: bounded in size and in what its aliases grow to.

What the values mean, and whether they are what was wanted, is left to whoever reads them.
"""

from __future__ import annotations

from typing import NoReturn

import yaml

from housecall.errors import Kind, Refusal

MAX_YAML_BYTES = 256 * 1024
MAX_YAML_NODES = 50_000


def load_yaml(text: str, what: str, *, max_bytes: int = MAX_YAML_BYTES) -> object:
    """One YAML document as plain Python values. Refuses size, repeated keys, cycles and
    documents that aliases blow up. No refusal quotes the text: it may be a site's output."""
    if len(text.encode("utf-8", "replace")) > max_bytes:
        raise Refusal(Kind.INVALID, "YAML_TOO_LARGE", f"{what}: expected at most {max_bytes} bytes")
    try:
        for count, _ in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):  # before any is kept
            if count > 3 * MAX_YAML_NODES:
                _invalid_yaml(what, f"more than {MAX_YAML_NODES} values")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _expanded_size(node, what, {})
        value: object = loader.construct_document(node)
        return value
    except yaml.MarkedYAMLError as error:
        at = f"line {error.problem_mark.line + 1}" if error.problem_mark else "unknown line"
        _invalid_yaml(what, f"a syntax error at {at}")
    except (yaml.YAMLError, ValueError, TypeError):
        _invalid_yaml(what, "characters, keys or numbers that cannot be read")
    except RecursionError:
        _invalid_yaml(what, "values nested too deeply")


def _expanded_size(node: yaml.Node, what: str, sizes: dict[int, int]) -> int:
    """How many nodes the document has once every alias is written out."""
    known = sizes.get(id(node))
    if known == 0:
        _invalid_yaml(what, f"an alias inside itself at line {node.start_mark.line + 1}")
    if known is not None:
        return known
    sizes[id(node)] = 0
    total, keys = 1, set()
    for item in node.value if isinstance(node, yaml.CollectionNode) else ():
        pair = item if isinstance(item, tuple) else (item,)
        if len(pair) == 2 and isinstance(pair[0], yaml.ScalarNode):
            key = (pair[0].tag, pair[0].value)
            if key in keys:
                _invalid_yaml(what, f"a repeated key at line {pair[0].start_mark.line + 1}")
            keys.add(key)
        total += sum(_expanded_size(child, what, sizes) for child in pair)
    if total > MAX_YAML_NODES:
        _invalid_yaml(what, f"more than {MAX_YAML_NODES} values")
    sizes[id(node)] = total
    return total


def _invalid_yaml(what: str, got: str) -> NoReturn:
    message = f"{what}: expected one YAML document, got {got}"
    raise Refusal(Kind.INVALID, "YAML_INVALID", message)
