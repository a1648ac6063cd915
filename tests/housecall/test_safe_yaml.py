"""YAML that is refused, in which words, and what is still read."""

from __future__ import annotations

import pytest

from housecall.errors import Refusal
from housecall.safe_yaml import load_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "code", "got"),
    [
        ("a: [1", "YAML_INVALID", "a syntax error at line 1"),
        ("a: 1\nb: 2\na: 3\n", "YAML_INVALID", "a repeated key at line 3"),
        ("&a [*a]", "YAML_INVALID", "an alias inside itself at line 1"),
        (BOMB, "YAML_INVALID", "more than 50000 values"),
        (MERGES, "YAML_INVALID", "more than 50000 values"),
        ("[" * 1500 + "]" * 1500, "YAML_INVALID", "values nested too deeply"),
        ("[" * 1500, "YAML_INVALID", "a syntax error at line 1"),
        ("a: " + "9" * 5000, "YAML_INVALID", "characters, keys or numbers that cannot be read"),
        ("a: !!python/object:os.system x", "YAML_INVALID", "a syntax error at line 1"),
        ("{[1]: 2}", "YAML_INVALID", "a syntax error at line 1"),
        ("a: 1\n---\nb: 2\n", "YAML_INVALID", "a syntax error at line 2"),
        ("a: \0", "YAML_INVALID", "characters, keys or numbers that cannot be read"),
        ("#" * 300_000, "YAML_TOO_LARGE", ""),
    ],
)
def test_yaml_that_is_refused(text: str, code: str, got: str) -> None:
    with pytest.raises(Refusal) as refused:
        load_yaml(text, "parameters")
    assert refused.value.code == code
    if got:
        expected = f"parameters: expected one YAML document, got {got}"
        assert refused.value.message == expected


def test_aliases_in_moderation_are_read() -> None:
    assert load_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a\n", "document") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1},
    }
