"""What the examination looks like: a line a check, the fix under it; or JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.doctor.examination import NAMES, Finding, exit_code, first_failure
from agent.doctor.finding import Level

_WIDTH = max(map(len, NAMES))
_LEVEL_WIDTH = max(map(len, Level))


def lines(finding: Finding) -> str:
    verdict = finding.verdict
    text = f"{finding.check:{_WIDTH}}  {verdict.level:{_LEVEL_WIDTH}}  {_clean(verdict.found)}"
    if verdict.code:
        text += f" [{verdict.code}]"
    if verdict.fix:
        text += f"\n{'':{_WIDTH + _LEVEL_WIDTH + 4}}fix: {_clean(verdict.fix)}"
    return text


def summary(findings: Iterable[Finding]) -> str:
    """The first failing hop and its fix."""
    findings = list(findings)
    first = first_failure(findings)
    if first is None:
        warnings = sum(each.verdict.level is Level.WARNING for each in findings)
        return f"nothing failed; warnings: {warnings}"
    fix = f"; {_clean(first.verdict.fix)}" if first.verdict.fix else ""
    return f"first to mend: {first.check}{fix}"


def document(findings: Iterable[Finding]) -> dict[str, Any]:
    findings = list(findings)
    first = first_failure(findings)
    return {
        "checks": [
            {
                "check": each.check,
                "level": str(each.verdict.level),
                "found": each.verdict.found,
                "fix": each.verdict.fix,
                "kind": each.verdict.kind.value if each.verdict.kind else None,
                "code": each.verdict.code,
            }
            for each in findings
        ],
        "first_failure": first.check if first else None,
        "exit_code": exit_code(findings),
    }


def _clean(text: str) -> str:
    """What others wrote, such as an issuer's name, cannot steer the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
