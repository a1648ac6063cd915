"""What is wrong with settings, as a refusal: which one, what was expected, and no secret."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from housecall.errors import Kind, Refusal
from housecall.setting_names import unknown_keys


def require_file(file: Path) -> None:
    """Refuses CONFIG_MISSING where the settings file that was named is none."""
    if not file.is_file():
        raise Refusal(
            Kind.INVALID,
            "CONFIG_MISSING",
            f"settings file {file}: expected a file, found none; check --config",
        )


def refusal_for(
    error: ValueError,
    settings: type[BaseSettings],
    page: str,
    file: Path | None,
    secret: Collection[str] = (),
) -> Refusal:
    """SETTINGS_INVALID for what reading `settings` raised. Of a setting in `secret` nothing is
    shown; of others, what a URL has of a user and password is left out."""
    if not isinstance(error, ValidationError):
        return _invalid(f"settings file {file}: expected TOML, got {error}; see {page}")
    found = error.errors(include_url=False)
    unknown = [_name(each["loc"]) for each in found if each["type"] == "extra_forbidden"]
    if unknown:
        return unknown_keys(settings, unknown, page)
    name, given = _name(found[0]["loc"]), found[0]["input"]
    prefix = settings.model_config.get("env_prefix", "")
    expected = found[0]["msg"].removeprefix("Value error, ")
    got = f"a {type(given).__name__}" if name.partition(".")[0] in secret else masked(repr(given))
    said = expected if ", got " in expected else f"{expected}, got {got}"
    return _invalid(f"setting {name} (or {prefix}{name.upper()}): {said}; see {page}")


def masked(text: str) -> str:
    """Without the user and password of a URL in it."""
    return re.sub(r"^(.*?//)?.*@", r"\1***@", text, flags=re.DOTALL)


def _name(place: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in place)


def _invalid(message: str) -> Refusal:
    return Refusal(Kind.INVALID, "SETTINGS_INVALID", message)
