"""The beginning of a container: a folder that works as it stands, to be filled with one's own work.

The templates are files beside this one, a folder a role, in plain Python.
"""

from __future__ import annotations

import re
from pathlib import Path

from housecall.errors import Kind, Refusal

PLACEHOLDER = "example-container"
_NAME = re.compile(r"[a-z0-9]+([._/-][a-z0-9]+)*")


def create(role: str, folder: Path, name: str) -> list[str]:
    """Write a role's files with the image named `name`; gives their paths in the folder."""
    _check_name(name)
    if folder.exists() and any(folder.iterdir()):
        raise Refusal(
            Kind.CONFLICT,
            "FOLDER_NOT_EMPTY",
            f"{folder}: expected a new or empty folder, got one with files; choose another one",
        )
    template = Path(__file__).parent / role
    written = []
    for path in sorted(template.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            place = path.relative_to(template)
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8")
            target.write_text(text.replace(PLACEHOLDER, name), encoding="utf-8")
            written.append(str(place))
    return written


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Refusal(
            Kind.INVALID,
            "USAGE",
            f"--name: expected an image's name in lower case (tissue-model), got {name!r}",
        )
