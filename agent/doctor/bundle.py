"""A bundle for those who help: findings, versions, settings, counts. It stays at the site until a
person sends it.

 1. Only what is named here goes in; of settings, what is a path, a URL, a name or a secret is
    blanked.
 2. Of the journal, states and codes are counted; never a path, a name of a case, a log line, a
    dataset's name or a statement.
 3. What the checks found goes in with the paths of the settings replaced by the settings' names.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

from agent.doctor.scene import Scene
from agent.journal_reader import COUNTS, JournalReader
from agent.settings import Settings
from housecall.errors import Refusal

PACKAGES = ("housecall", "grpcio", "protobuf", "cryptography", "docker", "nvidia-ml-py")
_SHOWN = (bool, int, float)
_WORDS = frozenset({"log_level", "log_format", "container_log_level", "container_user"})


def write(target: Path, scene: Scene, document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Write it, 0600, complete or not at all; gives each file's name and what it is."""
    parts = {
        "doctor.json": (_hidden(document, scene), "what the checks found, without paths"),
        "versions.json": (_versions(), "versions of programs and of the system"),
        "settings.json": (_settings(scene), "settings; paths, URLs, names and secrets blanked"),
        "journal.json": (_journal(scene), "states, codes and ids of executions, counted"),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, made = tempfile.mkstemp(dir=target.parent, prefix=".doctor-")
    with os.fdopen(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, (value, _) in parts.items():
                _add(archive, name, value)
        file.flush()
        os.fsync(file.fileno())
    Path(made).replace(target)
    for name, (_, what) in parts.items():
        yield name, what


def _add(archive: tarfile.TarFile, name: str, value: Any) -> None:
    content = json.dumps(value, indent=2, ensure_ascii=False).encode()
    member = tarfile.TarInfo(f"housecall-doctor/{name}")
    member.size, member.mode = len(content), 0o600
    member.mtime = int(datetime.now(UTC).timestamp())
    archive.addfile(member, BytesIO(content))


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in PACKAGES},
    }


def _settings(scene: Scene) -> dict[str, Any]:
    try:
        now = scene.settings
    except Refusal as refusal:
        return {"unreadable": refusal.code}
    return {name: _blanked(name, getattr(now, name)) for name in Settings.model_fields}


def _blanked(name: str, value: Any) -> Any:
    """A number or a word of ours as it is; of everything else only whether it is set."""
    if isinstance(value, _SHOWN) or name in _WORDS:
        return value
    if isinstance(value, list):
        return f"{len(value)} set"
    return "set" if value and str(value) else "not set"


def _journal(scene: Scene) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        path = scene.settings.state_dir / "journal.sqlite"
    except Refusal:
        return found
    with suppress(sqlite3.Error), JournalReader(path) as reader:
        for name in COUNTS:
            try:
                found[name] = reader.count(name)
            except sqlite3.Error as error:
                found[name] = f"unreadable: {error.sqlite_errorname}"
        found["open"] = reader.open_executions()
    return found


def _hidden(document: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """The findings with every path of the settings replaced by the setting's name."""
    text = json.dumps(document, ensure_ascii=False)
    for path, name in _paths(scene):
        text = text.replace(json.dumps(path, ensure_ascii=False)[1:-1], f"<{name}>")
    hidden: dict[str, Any] = json.loads(text)
    return hidden


def _paths(scene: Scene) -> list[tuple[str, str]]:
    """Paths that the settings name, the longest first, so that none hides in another."""
    try:
        now = scene.settings
    except Refusal:
        return []
    found = [(str(scene.config), "config")] if scene.config else []
    for name in Settings.model_fields:
        value = getattr(now, name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Path) and str(each) != "/":
                found.append((str(each), name))
    return sorted(found, key=lambda pair: len(pair[0]), reverse=True)
