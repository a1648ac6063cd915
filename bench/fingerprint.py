"""Fingerprints against plain hashing: `python -m bench.fingerprint`.

Plain hashing is one thread that reads the same files and feeds `hashlib.sha256`: a whole read for a
small file, `hashlib.file_digest` for a large one. Page cache warm, measurements interleaved, the
best of each kept, since noise on a shared machine only ever adds time. Where other programs keep a
core busy throughout, no first pass can reach its bound: `machine_speedup` in the values says how
much quicker all cores together hashed from memory in the same rounds than one did.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.figure import figure
from housecall.fingerprint import FingerprintCache, fingerprint

REPEATS = 11
SMALL_FILES, SMALL_BYTES = 5_000, 100_000
LARGE_FILES, LARGE_BYTES = 4, 256 << 20
BLOCK = 1 << 20


def main() -> None:
    """Measure in a temporary folder (1.6 GB) and print the figures."""
    with tempfile.TemporaryDirectory(prefix="housecall-bench-") as folder:
        small, large = Path(folder, "small"), Path(folder, "large")
        _fill(small, SMALL_FILES, SMALL_BYTES)
        _fill(large, LARGE_FILES, LARGE_BYTES)
        _first_pass("fingerprint_small_files", small, _plain_small, 1.5)
        _first_pass("fingerprint_large_files", large, _plain_large, 1.7)
        _unchanged(small, large, Path(folder, "cache.db"))


def _fill(folder: Path, files: int, size: int) -> None:
    """Files of random bytes, 1,000 in a folder."""
    for number in range(files):
        subfolder = folder / f"{number // 1000:03d}"
        subfolder.mkdir(parents=True, exist_ok=True)
        with (subfolder / f"{number:06d}.bin").open("wb") as file:
            for start in range(0, size, BLOCK):
                file.write(os.urandom(min(BLOCK, size - start)))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _plain_small(folder: Path) -> None:
    for path in _files(folder):
        hashlib.sha256(path.read_bytes()).digest()


def _plain_large(folder: Path) -> None:
    for path in _files(folder):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256").digest()


def _best(*actions: Callable[[], object]) -> list[float]:
    """Shortest time of each action in seconds, interleaved, after one round to warm up."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(REPEATS + 1):
        for action, spent in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            spent.append(time.perf_counter() - start)
    return [min(spent[1:]) for spent in times]


def _first_pass(name: str, folder: Path, plain: Callable[[Path], None], bound: float) -> None:
    cores = len(os.sched_getaffinity(0))
    plain_s, ours_s, one_s, all_s = _best(
        lambda: plain(folder),
        lambda: fingerprint({"data": folder}),
        lambda: _hash_memory(1),
        lambda: _hash_memory(cores),
    )
    values = {
        "plain_s": plain_s,
        "fingerprint_s": ours_s,
        "machine_speedup": cores * one_s / all_s,
    }
    figure(name, plain_s / ours_s, bound, True, values)


def _hash_memory(threads: int) -> None:
    """Each thread hashes 128 MiB, no files involved."""
    block = bytes(64 << 20)
    with ThreadPoolExecutor(threads) as pool:
        for hashed in [pool.submit(hashlib.sha256, block) for _ in range(2 * threads)]:
            hashed.result()


def _unchanged(small: Path, large: Path, cache_file: Path) -> None:
    """Both folders again, none of their files changed; the small files alone are in the values."""
    cache = FingerprintCache(cache_file, clock=lambda: time.time_ns() + 10_000_000_000)
    fingerprint({"data": small, "labels": large}, cache=cache)
    plain_small_s, plain_large_s, small_s, both_s = _best(
        lambda: _plain_small(small),
        lambda: _plain_large(large),
        lambda: fingerprint({"data": small}, cache=cache),
        lambda: fingerprint({"data": small, "labels": large}, cache=cache),
    )
    plain_s = plain_small_s + plain_large_s
    values = {
        "plain_s": plain_s,
        "fingerprint_s": both_s,
        "small_files_plain_s": plain_small_s,
        "small_files_fingerprint_s": small_s,
        "small_files_ratio": plain_small_s / small_s,
    }
    figure("fingerprint_unchanged", plain_s / both_s, 20, True, values)


if __name__ == "__main__":
    main()
