"""What holds for one run of the CLI: folders, the agent's socket, and how to speak.

Standard output is for what was asked (a table, JSON, CSV); everything else goes to standard error.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cli.traces import CommandTrace

DEFAULT_SOCKET = "/run/housecall-agent/agent.sock"


def default_home() -> Path:
    """`HOUSECALL_HOME`, else `~/.config/housecall`."""
    return Path(os.environ.get("HOUSECALL_HOME") or Path.home() / ".config" / "housecall")


@dataclass
class Settings:
    """One run's settings; the root command fills them, `--output` of a command sets `output`."""

    home: Path = field(default_factory=default_home)
    socket: Path = Path(DEFAULT_SOCKET)
    socket_chosen: bool = False
    """`--socket` stands on the command line: it wins over a person's identity."""
    profile: str | None = None
    output: str = "table"
    on_interrupt: str = "nothing was changed by this command"
    """What Ctrl-C leaves behind, as the running command knows it."""
    trace: CommandTrace | None = None
    """Where an endpoint for spans is set in the environment."""

    @property
    def identity_folder(self) -> Path:
        base = self.home / "profiles" / self.profile if self.profile else self.home
        return base / "identity"

    @property
    def enrolled(self) -> bool:
        return (self.identity_folder / "identity.json").exists()

    def say(self, text: str) -> None:
        """A text that belongs to the answer for a person; kept out of JSON and CSV."""
        click.echo(text, err=self.output != "table")

    def note(self, text: str) -> None:
        click.echo(text, err=True)

    def next(self, *commands: str) -> None:
        """What to do next, for a person only."""
        if self.output == "table":
            for command in commands:
                click.echo(f"Next: {command}", err=True)


pass_settings = click.make_pass_decorator(Settings)
