"""Rules 3 to 5 and 8: from the named parts to their manifest and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from housecall.fingerprint.cache import FingerprintCache
from housecall.fingerprint.listing import Part, scan
from housecall.fingerprint.pool import hash_all, usable_cores
from housecall.fingerprint.tally import Progress, Tally

_HEADER = b"housecall fingerprint 1\n"


@dataclass(frozen=True)
class Fingerprint:
    """`digest` is `sha256:<hex>`; `files` and `bytes` are summed over the parts, so that what two
    parts share counts twice."""

    digest: str
    files: int
    bytes: int


def fingerprint(
    parts: Mapping[str, Path],
    *,
    cache: FingerprintCache | None = None,
    full: bool = False,
    progress: Callable[[Progress], None] | None = None,
    threads: int | None = None,
) -> Fingerprint:
    """Fingerprint of the named parts, as defined at the top of this package.

    `full` reads every file even if the cache knows it, and refreshes the cache. `progress` is
    called in this thread, about twice a second and at the end; what it raises ends the work.
    `threads` is one for each usable core by default. Raises DataError with the codes DATA_MISSING,
    DATA_EMPTY, DATA_UNREADABLE, DATA_SYMLINK_LOOP, DATA_OUTSIDE, DATA_SPECIAL and DATA_CHANGED.
    """
    if not parts:
        raise ValueError("fingerprint: expected at least one part, got none")
    layout = sorted(scan(name, path) for name, path in parts.items())
    sizes = {entry.key: entry.size for part in layout for entry in part.entries if entry.key}
    known = _recall(cache, layout, sizes) if cache and not full else {}
    tally = Tally(sizes, known, cache, progress)
    hash_all(tally, threads or usable_cores())
    return _summary(layout, tally.digests)


def _recall(
    cache: FingerprintCache, layout: list[Part], sizes: Mapping[bytes, int]
) -> dict[bytes, bytes]:
    """Content digests of the files that are as the cache knew them; it forgets all others."""
    cached = cache.load({part.root for part in layout})
    known = {key: cached[key] for key in sizes.keys() & cached.keys()}
    cache.forget(cached.keys() - known.keys())
    return known


def _summary(layout: list[Part], digests: Mapping[bytes, bytes]) -> Fingerprint:
    files = [entry.size for part in layout for entry in part.entries if entry.key]
    digest = hashlib.sha256(b"".join(_manifest(layout, digests))).hexdigest()
    return Fingerprint(digest=f"sha256:{digest}", files=len(files), bytes=sum(files))


def _manifest(layout: list[Part], digests: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """Rules 3 to 5, line by line."""
    yield _HEADER
    for part in layout:
        yield b"part %d:%b %b\n" % (len(part.name), part.name, part.kind)
        for path, size, key in part.entries:
            if key:
                yield b"file %d:%b %d %b\n" % (len(path), path, size, digests[key])
            else:
                yield b"dir %d:%b\n" % (len(path), path)
