"""The command: examine, print as it goes, make the bundle that was asked for, end with a code."""

from __future__ import annotations

import json
from pathlib import Path

import click

from agent.doctor import bundle, screen
from agent.doctor.examination import NAMES, examine, exit_code
from agent.doctor.scene import Scene


def run(config: Path | None, *, names: tuple[str, ...], output: str, target: Path | None) -> int:
    """The exit code: 0 where nothing failed, else that of the first failure's kind."""
    for name in names:
        if name not in NAMES:
            raise click.BadParameter(f"expected one of {', '.join(NAMES)}, got {name!r}")
    scene, findings = Scene(config), []
    for finding in examine(scene, names):
        findings.append(finding)
        if output == "table":
            click.echo(screen.lines(finding))
    document = screen.document(findings)
    if output == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(f"\n{screen.summary(findings)}")
    if target is not None:
        for name, what in bundle.write(target, scene, document):
            click.echo(f"{target.name}: {name}: {what}", err=True)
        click.echo(f"{target} stays here: send it to whom you trust", err=True)
    return exit_code(findings)
