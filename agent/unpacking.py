"""Unpacking a tarball that nobody vouches for: bounded, and never outside its folder.

Whether it is the tarball that was registered is for `additional_files.py` to check before.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from housecall.errors import Kind, Refusal

MAX_READ = 16 * 2**20
_COMPRESSIONS: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", lzma.open),
)


@dataclass(frozen=True)
class Bounds:
    """How large an archive, its content and its number of entries may be."""

    archive_bytes: int = 20 * 2**30
    unpacked_bytes: int = 40 * 2**30
    entries: int = 100_000


DEFAULT_BOUNDS = Bounds()


def unpack(archive: Path, target: Path, bounds: Bounds) -> None:
    """Into the empty folder `target`; raises `Refusal` ADDITIONAL_FILES_UNSAFE."""
    with archive.open("rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in _COMPRESSIONS if start.startswith(magic)), open)
    try:
        with opener(archive, "rb") as plain:
            reader: Any = _Bounded(plain)
            with tarfile.open(fileobj=reader, mode="r:") as members:
                _extract(members, target, bounds)
    except (tarfile.TarError, EOFError, lzma.LZMAError, ValueError) as error:
        _unsafe("a tarball, plain or by gzip, bzip2 or xz", type(error).__name__)
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile) or error.errno is None:
            _unsafe("a whole tarball", "a damaged one")
        raise


class _Bounded:
    """A reader that refuses single reads that only a crafted header asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            _unsafe("headers of ordinary size", "a larger one")
        return self._file.read(size)


def _extract(members: tarfile.TarFile, target: Path, bounds: Bounds) -> None:
    seen: dict[str, tarfile.TarInfo] = {}
    size = 0
    for member in members:
        name = _checked_name(member, seen)
        if name == ".":
            continue
        size += member.size if member.isreg() else 0
        if size > bounds.unpacked_bytes or len(seen) >= bounds.entries:
            limit = f"at most {bounds.unpacked_bytes} bytes in {bounds.entries} entries"
            _unsafe(limit, "more")
        seen[name] = member
        members.extract(member, target, filter="data")
        if not member.issym():
            executable = member.isdir() or member.mode & 0o100
            (target / name).chmod(0o755 if executable else 0o644)


def _checked_name(member: tarfile.TarInfo, seen: dict[str, tarfile.TarInfo]) -> str:
    """The entry's clean path; no entry may lie below a link, or stand in another's place."""
    name = posixpath.normpath(member.name)
    if member.name.startswith("/") or ".." in member.name.split("/"):
        _unsafe("relative paths without '..'", "another")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        _unsafe("files, folders and links", "a device or pipe")
    parents = [str(parent) for parent in Path(name).parents]
    if any(parent in seen and not seen[parent].isdir() for parent in parents):
        _unsafe("folders above every file", "a link or a file")
    if name in seen and not (member.isdir() and seen[name].isdir()):
        _unsafe("every path once", "one twice")
    if member.issym() and not _stays_inside(name, member.linkname):
        _unsafe("links that stay inside", "one that leads out")
    if member.islnk() and not _is_file(seen.get(posixpath.normpath(member.linkname))):
        _unsafe("hard links to files before them", "another")
    return name


def _stays_inside(name: str, link: str) -> bool:
    """Only leading '..' and not above the root: a later one would act on where links lead."""
    parts = [part for part in link.split("/") if part not in ("", ".")]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    depth = name.count("/")
    return not link.startswith("/") and ".." not in parts[ups:] and ups <= depth


def _is_file(member: tarfile.TarInfo | None) -> bool:
    return member is not None and (member.isreg() or member.islnk())


def _unsafe(expected: str, got: str) -> NoReturn:
    refuse(Kind.INVALID, "UNSAFE", expected, got)


def refuse(kind: Kind, code: str, expected: str, got: str) -> NoReturn:
    """Raise the `Refusal` ADDITIONAL_FILES_ and the code."""
    message = f"additional files: expected {expected}, got {got}; ask the container's owner"
    raise Refusal(kind, f"ADDITIONAL_FILES_{code}", message)
