"""Gathers what the hashing threads finish: digests of files, the cache's share, and progress."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from housecall.fingerprint.cache import FingerprintCache
from housecall.fingerprint.hashing import PIECE, Unit


@dataclass(frozen=True)
class Progress:
    """How far a fingerprint is; what two parts share counts once, what the cache knew is done."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


class Tally:
    """Gathers digests in the calling thread; a large file is done with its last piece."""

    def __init__(
        self,
        sizes: Mapping[bytes, int],
        known: Mapping[bytes, bytes],
        cache: FingerprintCache | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.digests = dict(known)
        self.todo = {key: size for key, size in sizes.items() if key not in known}
        self._cache = cache
        self._progress = progress
        self._started_ns = cache.clock() if cache else 0
        self._pieces: dict[bytes, dict[int, bytes]] = {}
        self._total = (len(sizes), sum(sizes.values()))
        self._files_done = len(known)
        self._bytes_done = self._total[1] - sum(self.todo.values())

    def take(self, results: deque[tuple[Unit, bytes]]) -> None:
        """Take over what was hashed since the last call, remember it and report progress."""
        finished: dict[bytes, bytes] = {}
        while results:
            unit, digest = results.popleft()
            self._bytes_done += unit.length
            content = self._content_digest(unit, digest)
            if content:
                finished[unit.key] = content.hex().encode()
        self._files_done += len(finished)
        self.digests.update(finished)
        if self._cache and finished:
            self._cache.save(finished, self._started_ns)
        if self._progress:
            files, size = self._total
            self._progress(Progress(self._files_done, files, self._bytes_done, size))

    def _content_digest(self, unit: Unit, digest: bytes) -> bytes | None:
        """Rule 2; None while pieces are missing."""
        size = self.todo[unit.key]
        if size <= PIECE:
            return digest
        pieces = self._pieces.setdefault(unit.key, {})
        pieces[unit.offset] = digest
        if len(pieces) < -(-size // PIECE):
            return None
        del self._pieces[unit.key]
        return hashlib.sha256(b"".join(pieces[offset] for offset in sorted(pieces))).digest()
