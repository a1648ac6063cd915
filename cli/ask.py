"""Questions. There is one kind: `[y/N]`, where Enter is no."""

from __future__ import annotations

import sys

import click

from housecall.errors import Kind, Refusal


class Declined(Refusal):
    """The person said no."""

    def __init__(self, consequence: str) -> None:
        super().__init__(Kind.NOT_READY, "DECLINED", f"declined: {consequence}")


def has_terminal() -> bool:
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool, otherwise: str = "nothing was sent") -> None:
    """Return when the answer is yes. Raises Declined, or CONFIRMATION_NEEDED where nobody can
    be asked; `otherwise` says what a no leaves."""
    if yes:
        return
    if not has_terminal():
        raise Refusal(
            Kind.NOT_READY,
            "CONFIRMATION_NEEDED",
            f"{question} There is no terminal to ask on, {otherwise}: "
            "run it on a terminal, or give --yes",
        )
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if answer.strip().lower() not in ("y", "yes"):
        raise Declined(otherwise)
