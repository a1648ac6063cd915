"""What every command of `housecall-coordinator` is given: its settings, from file and options."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from coordinator.settings import CONFIG_VARIABLE, DEFAULT_CONFIG, Settings
from housecall.errors import Kind, Refusal
from housecall.setting_errors import refusal_for, require_file
from housecall.setting_names import require_known_variables

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
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
    named = config or os.environ.get(CONFIG_VARIABLE)
    if named:
        require_file(Path(named))
        os.environ[CONFIG_VARIABLE] = str(named)
    require_known_variables(Settings, PAGE, CONFIG_VARIABLE)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValueError as error:
        file = Path(named or DEFAULT_CONFIG)
        # Without its cause, which shows the values.
        raise refusal_for(error, Settings, PAGE, file, secret=["database_url"]) from None


def is_of_files(error: OSError) -> bool:
    """Whether a path or a disk is what failed, not a network or this program."""
    return error.filename is not None or error.errno in _NO_ROOM


def file_failed(error: OSError, place: Path | None = None) -> Refusal:
    """A path that cannot be read or written is the operator's to mend: the one that the error
    names, else `place`."""
    path = error.filename if error.filename is not None else place or "a file"
    if error.errno in _NO_ROOM:
        return Refusal(
            Kind.EXHAUSTED,
            "DISK_FULL",
            f"no room at {path} ({error.strerror}): make room on that disk, and try again",
        )
    return Refusal(
        Kind.INVALID,
        "FILE_FAILED",
        f"cannot use {path}: {error.strerror}; check the path and its rights, and run this as the "
        "user that the coordinator runs as",
    )


@contextmanager
def files(place: Path) -> Iterator[None]:
    """What the file system says no to at `place` is a refusal."""
    try:
        yield
    except OSError as error:
        raise file_failed(error, place) from error


def settings_help() -> str:
    """Each setting with its variable and its default, for `--help`."""
    lines = ["\b", "Settings (TOML file, or environment):"]
    for name, field in Settings.model_fields.items():
        default = f" [default: {field.default}]" if field.default not in (None, "") else ""
        lines += [f"  {name} (HOUSECALL_COORDINATOR_{name.upper()})"]
        lines += [f"      {field.description}{default}"]
    return "\n".join(lines)
