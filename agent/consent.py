"""The site's standing consent: what runs and what leaves without asking a person each time.

A policy is a YAML or TOML file in the shape of `policy.schema.json`; the first rule that fits
decides, and where none fits a person is asked. A policy that cannot be read refuses the start;
one that is damaged later makes everything ask. Carrying decisions out is left to `orders.py`.
"""

from __future__ import annotations

import datetime
import json
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from housecall.errors import Kind, Refusal
from housecall.safe_yaml import load_yaml
from housecall.statement import digest

SCHEMA = Path(__file__).with_name("policy.schema.json")
MAX_POLICY_BYTES = 1 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What is to be decided: one model of one benchmark. `owner` is a SPIFFE id."""

    benchmark_id: int
    owner: str
    container_digest: str
    purpose: str


@dataclass(frozen=True)
class Decision:
    """`run` is allow, ask or refuse; `release` is allow or ask; `rule` says which rule it was."""

    run: str
    release: str
    rule: str
    policy_digest: str


@dataclass(frozen=True)
class Policy:
    digest: str
    rules: tuple[Mapping[str, Any], ...] = ()

    def decide(self, question: Question, now: datetime.datetime) -> Decision:
        for rule in self.rules:
            if _fits(rule, question, now):
                return Decision(rule["run"], rule.get("release", "ask"), rule["name"], self.digest)
        return Decision("ask", "ask", "default", self.digest)


def _fits(rule: Mapping[str, Any], question: Question, now: datetime.datetime) -> bool:
    expires = rule.get("expires")
    return (
        rule["benchmark"] == question.benchmark_id
        and ("owners" not in rule or question.owner in rule["owners"])
        and ("containers" not in rule or question.container_digest in rule["containers"])
        and ("purpose" not in rule or question.purpose.lower() in rule["purpose"])
        and (expires is None or now.date() <= datetime.date.fromisoformat(expires))
    )


def read(path: Path) -> Policy:
    """Raises `Refusal` POLICY_INVALID, which names the place that is wrong."""
    try:
        content = path.read_bytes()
        text = content.decode()
        toml = path.suffix == ".toml"
        document: object = (
            tomllib.loads(text) if toml else load_yaml(text, "policy", max_bytes=MAX_POLICY_BYTES)
        )
    except (OSError, ValueError, Refusal) as error:
        raise _invalid(path, f"a YAML or TOML file, got {error}") from error
    document = _plain(document)
    schema = json.loads(SCHEMA.read_text())
    for problem in Draft202012Validator(schema).iter_errors(document):
        raise _invalid(
            path, f"what {SCHEMA.name} says, got at {problem.json_path}: {problem.message}"
        )
    assert isinstance(document, dict)
    rules = tuple(document["rules"])
    names = [rule["name"] for rule in rules]
    if len(set(names)) != len(names):
        raise _invalid(path, "rules with names of their own, got one name twice")
    for rule in rules:
        try:
            datetime.date.fromisoformat(rule.get("expires", "2000-01-01"))
        except ValueError:
            raise _invalid(path, f"a day, got expires {rule['expires']}") from None
    return Policy(digest(content), rules)


class PolicyFile:
    """The policy as the file says now; read again when the file changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp = self._look()
        self._policy = read(path) if path else Policy(digest(b""))
        self.problem = ""

    def current(self) -> Policy:
        stamp = self._look()
        if self._path and stamp != self._stamp:
            self._stamp = stamp
            try:
                self._policy, self.problem = read(self._path), ""
                log.info("policy read", extra={"policy_digest": self._policy.digest})
            except Refusal as refusal:
                self._policy, self.problem = Policy(digest(b"")), str(refusal)
                log.error("policy damaged: everything asks", extra={"problem": refusal.message})
        return self._policy

    def _look(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat() if self._path else None
        except OSError:
            return 0, 0, -1
        return (status.st_mtime_ns, status.st_size, status.st_ino) if status else (0, 0, 0)


def _plain(value: Any) -> Any:
    """Dates, which YAML and TOML know and JSON does not, as ISO text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def _invalid(path: Path, expected_got: str) -> Refusal:
    return Refusal(
        Kind.INVALID,
        "POLICY_INVALID",
        f"policy {path.name}: expected {expected_got}; correct it, see docs/agent.md",
    )
