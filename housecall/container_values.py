"""The values that a container configuration may hold, each checked and put into one form.

Every violation is a `Refusal` that names the key path, what was expected and what was found.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import NoReturn

from housecall.errors import Kind, Refusal

FORBIDDEN_TREES = ("/proc", "/sys", "/dev")
FORBIDDEN_PATHS = ("/", "/tmp")  # noqa: S108 - inside the container
_SIZE = re.compile(r"([1-9][0-9]*)([bkmg]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEVICES = re.compile(r"device=[A-Za-z0-9/._-]+(,[A-Za-z0-9/._-]+)*")


def as_mapping(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        refuse("CONFIG_BAD_TYPE", path, "a mapping", value)
    for key in value:
        if not isinstance(key, str):
            refuse("CONFIG_BAD_TYPE", path, "keys that are strings", key)
    return value


def only(
    value: Mapping[str, object], path: str, wanted: Mapping[str, bool], *, what: str = "KEY"
) -> None:
    """`wanted` maps each known key to whether it must be there."""
    place, known = f"{path}." if path else "", ", ".join(wanted) or "none"
    for key in value:
        if key not in wanted:
            refuse(f"CONFIG_UNKNOWN_{what}", place + key, f"one of: {known}", key)
    for key, required in wanted.items():
        if required and key not in value:
            refuse(f"CONFIG_MISSING_{what}", place + key, f"the {what.lower()} {key}", "nothing")


def as_mount_path(value: object, path: str) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        refuse("CONFIG_BAD_PATH", path, "an absolute path", value)
    if ".." in value.split("/"):
        refuse("CONFIG_BAD_PATH", path, "a path without '..'", value)
    if re.search(r"[:\\\x00-\x1f]", value):
        refuse("CONFIG_BAD_PATH", path, "a path without ':', '\\' or control characters", value)
    clean = "/" + posixpath.normpath(value).lstrip("/")
    if clean in FORBIDDEN_PATHS or any(inside(clean, tree) for tree in FORBIDDEN_TREES):
        refuse("CONFIG_BAD_PATH", path, "a path outside /, /tmp, /proc, /sys and /dev", value)
    return clean


def inside(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree + "/")


def as_words(value: object, path: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and all(type(word) in (str, int, float) for word in value):
        return tuple(str(word) for word in value)
    if not isinstance(value, str):
        refuse("CONFIG_BAD_VALUE", path, "a string or a list of strings", value)
    try:
        return tuple(shlex.split(value))
    except ValueError:
        refuse("CONFIG_BAD_VALUE", path, "a command with closed quotes", value)


def as_variables(value: object, path: str) -> Mapping[str, str]:
    variables = as_mapping(value or {}, path)
    for name, content in variables.items():
        if not _VARIABLE.fullmatch(name):
            refuse("CONFIG_BAD_VALUE", path, "names of letters, digits and _", name)
        if not isinstance(content, (str, int, float)) or "\0" in str(content):
            refuse("CONFIG_BAD_VALUE", f"{path}.{name}", "a string or a number", content)
    return MappingProxyType({name: str(content) for name, content in variables.items()})


def as_size(value: object, path: str) -> int | None:
    if value is None:
        return None
    match = _SIZE.fullmatch(str(value)) if type(value) in (str, int) else None
    if match is None:
        refuse("CONFIG_BAD_VALUE", path, "a size such as 2g, 512m or a number of bytes", value)
    return int(match[1]) * _UNITS[match[2].lower()]


def as_gpus(value: object, path: str) -> str | int | None:
    if isinstance(value, list) and value:
        value = "device=" + ",".join(str(device) for device in value)
    if value is None or (type(value) is int and value >= 0):
        return value
    if not isinstance(value, str) or not (value == "all" or _DEVICES.fullmatch(value)):
        expected = "a count, 'all', 'device=0,1' or a list of devices"
        refuse("CONFIG_BAD_VALUE", path, expected, value)
    return value


def refuse(code: str, path: str, expected: str, got: object) -> NoReturn:
    found = got if got == "nothing" else repr(got)[:80]
    message = f"{path}: expected {expected}, got {found}; correct it and register again"
    raise Refusal(Kind.INVALID, code, message)
