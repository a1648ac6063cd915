"""What every command of `housecall-coordinator` is given: its settings, from file and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from coordinator.settings import CONFIG_VARIABLE, Settings
from housecall.errors import Kind, Refusal

CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file; default /etc/housecall/coordinator.toml where it exists.",
)
STATE = click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Overrides the setting state_dir."
)


def read_settings(config: Path | None, **overrides: Any) -> Settings:
    """The settings; refuses CONFIG_MISSING and SETTINGS_INVALID."""
    if config is not None:
        if not config.is_file():
            raise Refusal(Kind.NOT_FOUND, "CONFIG_MISSING", f"there is no file {config}")
        os.environ[CONFIG_VARIABLE] = str(config)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except (ValidationError, ValueError) as error:
        raise Refusal(Kind.INVALID, "SETTINGS_INVALID", f"settings: {error}") from error


def settings_help() -> str:
    """Each setting with its variable, for `--help`."""
    lines = ["\b", "Settings (TOML file, or environment):"]
    for name, field in Settings.model_fields.items():
        lines += [f"  {name} (HOUSECALL_COORDINATOR_{name.upper()})", f"      {field.description}"]
    return "\n".join(lines)
