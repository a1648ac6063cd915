"""`housecall profile`: the identities of this machine's user."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cli.command import example, output_option
from cli.output import Column, Row, show_list
from cli.settings import Settings, pass_settings

COLUMNS: list[Column] = [
    ("profile", "profile"),
    ("name", "name"),
    ("coordinator", "address"),
    ("chosen", "chosen"),
]


@click.group()
def command() -> None:
    """Your identities on this machine; `--profile NAME` chooses one."""


@command.command(
    short_help="List your identities.",
    epilog=example("housecall profile ls", "housecall --profile ada whoami"),
)
@output_option(lists=True)
@pass_settings
def ls(settings: Settings) -> None:
    """List your identities: the default one, and those made with --profile."""
    folders = {"default": settings.home / "identity"}
    profiles = settings.home / "profiles"
    for folder in sorted(profiles.iterdir()) if profiles.is_dir() else []:
        folders[folder.name] = folder / "identity"
    rows = [
        row
        for name, folder in folders.items()
        if (row := _row(name, folder, chosen=name == (settings.profile or "default")))
    ]
    show_list(settings, rows, COLUMNS, "no identities yet: housecall enroll --token TOKEN")


def _row(name: str, folder: Path, *, chosen: bool) -> Row | None:
    try:
        facts = json.loads((folder / "identity.json").read_bytes())
    except (OSError, ValueError):
        return None
    return {
        "profile": name,
        "name": facts.get("name", ""),
        "address": facts.get("address", ""),
        "chosen": chosen,
    }
