"""The contract with outputs, applied in a process of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent import contract
from housecall.errors import Kind, Refusal

CATASTROPHIC = json.dumps(
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(x+)+$"}}}
)


def output(folder: Path, text: str) -> Path:
    path = folder / "results.yaml"
    path.write_text(text)
    return path


def test_what_is_valid_comes_back_with_small_counts_suppressed(tmp_path: Path) -> None:
    schema = json.dumps(
        {"type": "object", "properties": {"n": {"type": "integer", "x-housecall-count": True}}}
    )
    path = output(tmp_path, "n: 3\nauc: 0.5\n")
    found = contract.checked(path, schema, max_bytes=1000, minimum_count=5)
    assert found == {"n": {"suppressed": "<5"}, "auc": 0.5}


def test_a_schema_that_never_ends_is_refused_and_the_next_one_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "SECONDS", 2)
    path = output(tmp_path, f"a: {'x' * 40}y\n")
    with pytest.raises(Refusal) as caught:
        contract.checked(path, CATASTROPHIC, max_bytes=1000, minimum_count=0)
    assert caught.value.code == "SCHEMA_INVALID"
    assert "within 2 s" in caught.value.message
    monkeypatch.setattr(contract, "SECONDS", 30)
    path = output(tmp_path, "a: xxx\n")
    assert contract.checked(path, CATASTROPHIC, max_bytes=1000, minimum_count=0) == {"a": "xxx"}


def test_a_checker_that_dies_says_nothing_of_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = output(tmp_path, "a: xxx\n")
    monkeypatch.setattr(contract, "_answer", os._exit)  # ends with an error, wherever it is started
    contract._CHECKER.close()
    with pytest.raises(Refusal) as caught:
        contract.checked(path, CATASTROPHIC, max_bytes=1000, minimum_count=0)
    assert (caught.value.code, caught.value.kind) == ("CHECKER_FAILED", Kind.UNAVAILABLE)
    monkeypatch.undo()
    assert contract.checked(path, CATASTROPHIC, max_bytes=1000, minimum_count=0) == {"a": "xxx"}
