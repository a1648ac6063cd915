"""The standing policy: which rule decides, and what a damaged file does."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.consent import PolicyFile, Question, read
from housecall.errors import Refusal

MONA = "spiffe://test/person/mona"
DIGEST = "sha256:" + "a" * 64
NOW = datetime(2026, 5, 1, tzinfo=UTC)
QUESTION = Question(1, MONA, DIGEST, "BENCHMARK")


def policy(folder: Path, text: str, name: str = "policy.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("run: allow", ("allow", "ask")),
        ("run: allow, release: allow", ("allow", "allow")),
        ("run: refuse", ("refuse", "ask")),
        (f"run: allow, owners: ['{MONA}']", ("allow", "ask")),
        ("run: allow, owners: ['spiffe://test/person/eve']", ("ask", "ask")),
        (f"run: allow, containers: ['{DIGEST}']", ("allow", "ask")),
        (f"run: allow, containers: ['sha256:{'b' * 64}']", ("ask", "ask")),
        ("run: allow, purpose: [test]", ("ask", "ask")),
        ("run: allow, expires: 2026-05-01", ("allow", "ask")),
        ("run: allow, expires: 2026-04-30", ("ask", "ask")),
    ],
)
def test_a_rule_decides_what_it_fits(tmp_path: Path, rule: str, expected: tuple[str, str]) -> None:
    file = policy(tmp_path, f"rules: [{{name: r, benchmark: 1, {rule}}}]")
    decision = read(file).decide(QUESTION, NOW)
    assert (decision.run, decision.release) == expected


def test_the_first_rule_that_fits_wins_and_is_named(tmp_path: Path) -> None:
    text = """
    rules:
      - {name: other, benchmark: 2, run: allow}
      - {name: refused, benchmark: 1, run: refuse}
      - {name: allowed, benchmark: 1, run: allow}
    """
    assert read(policy(tmp_path, text)).decide(QUESTION, NOW).rule == "refused"


def test_toml_works_too(tmp_path: Path) -> None:
    text = '[[rules]]\nname = "r"\nbenchmark = 1\nrun = "allow"\nexpires = 2026-12-31\n'
    file = policy(tmp_path, text, "policy.toml")
    assert read(file).decide(QUESTION, NOW).run == "allow"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rules: 3",
        "rules: [{name: r, benchmark: 1}]",
        "rules: [{name: r, benchmark: 1, run: maybe}]",
        "rules: [{name: r, benchmark: 1, run: allow, typo: 1}]",
        "rules: [{name: r, benchmark: 1, run: ask}, {name: r, benchmark: 2, run: ask}]",
        "rules: [",
    ],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(Refusal, match=r"policy\.yaml: expected") as caught:
        PolicyFile(policy(tmp_path, text))
    assert caught.value.code == "POLICY_INVALID"


def test_a_policy_damaged_later_makes_everything_ask(tmp_path: Path) -> None:
    file = policy(tmp_path, "rules: [{name: r, benchmark: 1, run: allow}]")
    live = PolicyFile(file)
    assert live.current().decide(QUESTION, NOW).run == "allow"
    file.write_text("rules: [")
    os.utime(file, ns=(1, 1))
    assert live.current().decide(QUESTION, NOW).run == "ask"
    assert "POLICY_INVALID" in live.problem
    file.write_text("rules: [{name: r, benchmark: 1, run: refuse}]")
    assert live.current().decide(QUESTION, NOW).run == "refuse"
    assert live.problem == ""


def test_no_policy_asks() -> None:
    assert PolicyFile(None).current().decide(QUESTION, NOW).run == "ask"


def test_an_impossible_date_is_refused_when_it_is_read(tmp_path: Path) -> None:
    rule = "{name: r, benchmark: 1, run: allow, expires: '2026-02-30'}"
    with pytest.raises(Refusal) as caught:
        read(policy(tmp_path, f"rules: [{rule}]"))
    assert caught.value.code == "POLICY_INVALID"
    assert "2026-02-30" in caught.value.message
