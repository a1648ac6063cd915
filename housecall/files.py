"""What is on the disk for sure, and outlives a power cut; and files that are new."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from housecall.errors import Kind, Refusal


def sync(path: Path) -> None:
    """What was written to a file, or which names a folder holds."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_private(path: Path) -> Iterator[IO[bytes]]:
    """A file that was not there, 0600, made before the work whose outcome it shall hold, and on the
    disk afterwards; gone where that work fails. Refuses FILE_EXISTS; raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise Refusal(
            Kind.CONFLICT,
            "FILE_EXISTS",
            f"there is something at {path} already: name a new file, or move that one away",
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    sync(path.parent)
