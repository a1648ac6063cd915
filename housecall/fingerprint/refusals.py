"""Why data cannot be fingerprinted: one refusal for each cause, and the table of their kinds."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from housecall.errors import Kind, Refusal

KINDS: Mapping[str, Kind] = {
    "DATA_MISSING": Kind.NOT_FOUND,
    "DATA_EMPTY": Kind.INVALID,
    "DATA_SYMLINK_LOOP": Kind.INVALID,
    "DATA_OUTSIDE": Kind.INVALID,
    "DATA_SPECIAL": Kind.INVALID,
    "DATA_UNREADABLE": Kind.NOT_READY,
    "DATA_CHANGED": Kind.NOT_READY,
}
"""Not ready is what a later try may find mended without another path."""


class DataError(Refusal):
    """The data cannot be fingerprinted; `path` is what it is about."""

    def __init__(self, code: str, path: Path, message: str) -> None:
        super().__init__(KINDS[code], code, message)
        self.path = path


def _path(raw: bytes) -> Path:
    return Path(os.fsdecode(raw))


def part_missing(name: str, given: Path) -> DataError:
    return DataError(
        "DATA_MISSING",
        given,
        f"{name}: expected a folder or a file at {given}, found nothing; "
        "check the path, and that the disk it is on is mounted",
    )


def target_missing(link: bytes, target: bytes) -> DataError:
    return DataError(
        "DATA_MISSING",
        _path(link),
        f"link {_path(link)}: expected a file or a folder at {_path(target)}, found nothing; "
        "restore it or remove the link",
    )


def outside(link: bytes, target: bytes, root: bytes) -> DataError:
    return DataError(
        "DATA_OUTSIDE",
        _path(link),
        f"link {_path(link)} leads to {_path(target)}: expected that everything lies below "
        f"{_path(root)}; put the file itself there",
    )


def empty(name: str, given: Path, entries: int) -> DataError:
    return DataError(
        "DATA_EMPTY",
        given,
        f"{name}: expected files with content at {given}, "
        f"found {entries} entries and not one byte; check that it is the right one, and mounted",
    )


def loop(link: bytes) -> DataError:
    return DataError(
        "DATA_SYMLINK_LOOP",
        _path(link),
        f"link {_path(link)}: expected a file or a folder at its end, "
        "got one that leads back to itself; remove the link",
    )


def special(path: bytes, status: os.stat_result) -> DataError:
    kinds = {
        stat.S_IFSOCK: "a socket",
        stat.S_IFIFO: "a fifo",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode), "something else")
    return DataError(
        "DATA_SPECIAL",
        _path(path),
        f"{_path(path)}: expected files and folders only, got {kind}; move it elsewhere",
    )


def unlistable(path: bytes, error: OSError) -> DataError:
    """What an error while listing means; the error's own path is the more exact one."""
    if error.filename is not None:
        path = os.fsencode(error.filename)
    return loop(path) if error.errno == errno.ELOOP else unreadable(path, error)


def unreadable(path: bytes, error: OSError) -> DataError:
    if error.errno in _REPLACED:
        return DataError(
            "DATA_CHANGED",
            _path(path),
            f"{_path(path)}: expected it as it was when its folder was listed, "
            f"got: {error.strerror}; stop what changes the data and start again",
        )
    return DataError(
        "DATA_UNREADABLE",
        _path(path),
        f"{_path(path)}: expected to read it as user {os.geteuid()}, got: {error.strerror}; "
        "give that user the right to read, or check the disk",
    )


_REPLACED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ESPIPE, errno.ENXIO}
"""Errors of a file that is gone, or that a folder, link, fifo or socket took the place of."""


def changed(path: bytes, size: int, mtime: int, status: os.stat_result) -> DataError:
    return DataError(
        "DATA_CHANGED",
        _path(path),
        f"{_path(path)} changed while it was read: expected {size} bytes of mtime {mtime} ns, "
        f"got {status.st_size} bytes of mtime {status.st_mtime_ns} ns; "
        "stop what changes the data and start again",
    )
