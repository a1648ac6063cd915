"""Rule 2: what is hashed in one go, and its SHA-256.

Refuses a file that is no longer the one that was listed; whose turn it is, `pool.py` decides.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from housecall.fingerprint import refusals
from housecall.fingerprint.keys import key_path, key_stamp

PIECE = 64 << 20
WHOLE = 1 << 20
"""Up to here a file is read at once (quickest for small ones), beyond it through a buffer."""
_BATCH = 8 << 20
_PER_FILE = 32 << 10
"""What opening a file costs, in bytes hashed in that time; keeps batches of tiny files small."""


class Unit(NamedTuple):
    """What is hashed in one go: a file, or a piece of a large one."""

    key: bytes
    offset: int
    length: int


def batches_of(todo: Mapping[bytes, int]) -> Iterator[list[Unit]]:
    """Files in the order of their paths, in batches of about the same cost."""
    batch: list[Unit] = []
    cost = 0
    for key in sorted(todo):
        for offset in range(0, max(todo[key], 1), PIECE):
            unit = Unit(key, offset, min(todo[key] - offset, PIECE))
            batch.append(unit)
            cost += unit.length + _PER_FILE
            if cost >= _BATCH:
                yield batch
                batch, cost = [], 0
    if batch:
        yield batch


def hash_unit(unit: Unit, buffer: memoryview) -> bytes:
    """SHA-256 of a file or a piece, if it still is the file that was listed."""
    path = key_path(unit.key)
    try:
        # Not following, not blocking: a link or a fifo may have taken the file's place.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            digest = _hash_range(fd, unit.offset, unit.length, buffer)
            status = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise refusals.unreadable(path, error) from error
    size, mtime, _, inode, device = key_stamp(unit.key)
    got = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)
    if got != (size, mtime, inode, device):
        raise refusals.changed(path, size, mtime, status)
    return digest


def _hash_range(fd: int, offset: int, length: int, buffer: memoryview) -> bytes:
    """SHA-256 of `length` bytes, or of fewer if the file ends before (the caller finds out)."""
    if length <= WHOLE:
        data = os.pread(fd, length, offset)
        if len(data) == length:
            return hashlib.sha256(data).digest()
    hasher = hashlib.sha256()
    end = offset + length
    with open(fd, "rb", buffering=0, closefd=False) as file:
        file.seek(offset)
        while offset < end:
            count = file.readinto(buffer[: end - offset])
            if not count:
                break
            hasher.update(buffer[:count])
            offset += count
    return hasher.digest()
