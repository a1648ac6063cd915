"""Rules 1 and 5 to 7: what a part holds, its links followed and its entries sorted.

Reads folders and no file; hashing what it found is left to `hashing.py`.
"""

from __future__ import annotations

# Paths are bytes here, as the file system holds them; pathlib has only text.
# ruff: noqa: PTH100, PTH116, PTH118, PTH119
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from housecall.fingerprint import refusals
from housecall.fingerprint.keys import file_key


class Entry(NamedTuple):
    """A line of the manifest: a file, or a folder when `key` is empty."""

    path: bytes
    size: int
    key: bytes


class Part(NamedTuple):
    """A part under its name; `kind` is `folder` or `file`, `root` its real path."""

    name: bytes
    kind: bytes
    root: bytes
    entries: list[Entry]


def scan(name: str, given: Path) -> Part:
    """List a part, its entries sorted."""
    root = _real_root(name, given)
    try:
        status = os.stat(root)
        if stat.S_ISREG(status.st_mode):
            own_name = os.path.basename(os.path.abspath(os.fsencode(given)))
            kind, entries = b"file", [Entry(own_name, status.st_size, file_key(root, status))]
        elif stat.S_ISDIR(status.st_mode):
            kind, entries = b"folder", sorted(_walk(root, status))
        else:
            raise refusals.special(root, status)
    except OSError as error:
        raise refusals.unlistable(root, error) from error
    if not any(entry.size for entry in entries):
        raise refusals.empty(name, given, len(entries))
    return Part(name.encode("utf-8", "surrogateescape"), kind, root, entries)


def _real_root(name: str, given: Path) -> bytes:
    try:
        return os.path.realpath(os.fsencode(given), strict=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise refusals.part_missing(name, given) from error
    except OSError as error:
        raise refusals.unlistable(os.fsencode(given), error) from error


def _walk(root: bytes, root_status: os.stat_result) -> list[Entry]:
    """Everything below the real folder `root`, unsorted."""
    entries: list[Entry] = []
    identity = (root_status.st_dev, root_status.st_ino)
    pending = [(b"", root, frozenset([identity]))]
    while pending:
        prefix, folder, above = pending.pop()
        for path, name, status in _list(folder, root):
            if stat.S_ISREG(status.st_mode):
                entries.append(Entry(prefix + name, status.st_size, file_key(path, status)))
            elif stat.S_ISDIR(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if identity in above:
                    raise refusals.loop(os.path.join(folder, name))
                entries.append(Entry(prefix + name, 0, b""))
                pending.append((prefix + name + b"/", path, above | {identity}))
            else:
                raise refusals.special(path, status)
    return entries


def _list(folder: bytes, root: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Real path, name and status of what is in a folder, links followed."""
    with os.scandir(folder) as listing:
        for entry in listing:
            path, status = entry.path, entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                path = _follow(path, root)
                status = os.stat(path)
            yield path, entry.name, status


def _follow(link: bytes, root: bytes) -> bytes:
    """Rule 7: real path of what a link below `root` leads to."""
    target = os.path.realpath(link)
    if target != root and not target.startswith(os.path.join(root, b"")):
        raise refusals.outside(link, target, root)
    try:
        return os.path.realpath(link, strict=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise refusals.target_missing(link, target) from error
