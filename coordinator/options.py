"""What every command of `housecall-coordinator` is given: its settings, from file and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from coordinator.settings import CONFIG_VARIABLE, Settings
from housecall.errors import Kind, Refusal
from housecall.setting_names import require_known_variables, unknown_keys

PAGE = "docs/settings-coordinator.md"
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
    require_known_variables(Settings, PAGE, CONFIG_VARIABLE)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValueError as error:
        raise _wrong(error) from error


def _wrong(error: ValueError) -> Refusal:
    found = error.errors() if isinstance(error, ValidationError) else []
    unknown = [str(each["loc"][0]) for each in found if each["type"] == "extra_forbidden"]
    if unknown:
        return unknown_keys(Settings, unknown, PAGE)
    return Refusal(Kind.INVALID, "SETTINGS_INVALID", f"settings: {error}")


def file_failed(error: OSError) -> Refusal:
    """A path that cannot be read or written is the operator's to mend."""
    return Refusal(
        Kind.INVALID,
        "FILE_FAILED",
        f"cannot use {error.filename}: {error.strerror}; check the path and its rights, and run "
        "this as the user that the coordinator runs as",
    )


def settings_help() -> str:
    """Each setting with its variable, for `--help`."""
    lines = ["\b", "Settings (TOML file, or environment):"]
    for name, field in Settings.model_fields.items():
        lines += [f"  {name} (HOUSECALL_COORDINATOR_{name.upper()})", f"      {field.description}"]
    return "\n".join(lines)
