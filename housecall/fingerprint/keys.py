"""The key of a file: which file it is and how it was when it was listed.

A key is the file's real path, a NUL and its stamp; all that the rooms beside pass around is keys.
"""

from __future__ import annotations

import os
import struct

_STAMP = struct.Struct("=QqqQQ")
"""Size, mtime_ns, ctime_ns, inode and device."""


def file_key(path: bytes, status: os.stat_result) -> bytes:
    return b"%b\0%b" % (
        path,
        _STAMP.pack(
            status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
        ),
    )


def key_path(key: bytes) -> bytes:
    return key[: -_STAMP.size - 1]


def key_stamp(key: bytes) -> tuple[int, int, int, int, int]:
    size, mtime, ctime, inode, device = _STAMP.unpack_from(key, len(key) - _STAMP.size)
    return size, mtime, ctime, inode, device
