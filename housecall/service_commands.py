"""`install` and `uninstall` of the two programs that run as services."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from housecall.errors import Kind, Refusal
from housecall.service import USER, Machine, Service, install, purged, uninstall

Wrap = Callable[[Callable[..., None]], Callable[..., None]]
_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="Only put the files below this folder, as for an image; run nothing.",
)
_USER_HELP = "Run as this user [the one it has; at first {}]."
_DRY = click.option("--dry-run", is_flag=True, help="Print each step; do nothing.")


def service_commands(service: Service, wrap: Wrap) -> list[click.Command]:
    """`wrap` is how the program ends with a refusal's exit code."""

    @click.command("install")
    @_ROOT
    @_DRY
    @click.option("--user", default="", callback=_user, help=_USER_HELP.format(service.name))
    @wrap
    def install_command(root: Path, dry_run: bool, user: str) -> None:
        """Put the systemd unit, its user and its folders in place, and enable it; or upgrade it.

        A running service is restarted; one that does not run is not started.
        """
        machine = Machine(root.absolute(), dry_run, click.echo)
        install(service, machine, user=user)
        click.echo(f"next: systemctl start {service.name}, when it is set up", err=True)

    @click.command("uninstall")
    @_ROOT
    @_DRY
    @click.option("--purge", is_flag=True, help="Remove state, keys and settings too; asks first.")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @wrap
    def uninstall_command(root: Path, dry_run: bool, purge: bool, yes: bool) -> None:
        """Stop the service and remove its unit. State, keys and settings stay."""
        machine = Machine(root.absolute(), dry_run, click.echo)
        if purge and not (yes or dry_run):
            _ask([str(path) for path in purged(service, machine)])
        uninstall(service, machine, purge=purge)

    return [install_command, uninstall_command]


def _ask(paths: list[str]) -> None:
    if paths and not click.confirm(f"Remove for good: {', '.join(paths)}?", err=True):
        raise Refusal(Kind.NOT_READY, "DECLINED", "nothing was removed")


def _user(_context: Any, _parameter: Any, name: str) -> str:
    if name and (name == "root" or not re.fullmatch(USER, name)):
        raise click.BadParameter(
            f"expected the name of a user that is not root, got {name!r}: the unit takes root's "
            "rights away"
        )
    return name
