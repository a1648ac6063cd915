"""What is not read again, and what is."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from housecall.fingerprint import FingerprintCache, Progress, fingerprint
from tests.housecall.fingerprint.reference import reference
from tests.housecall.fingerprint.world import MIB, later, plant, poison, remembered


def test_what_did_not_change_is_not_read_again(tmp_path: Path, data: Path) -> None:
    cache = FingerprintCache(tmp_path / "cache.db", clock=later())
    first = fingerprint({"data": data}, cache=cache)
    assert len(remembered(cache, data)) == 2
    assert fingerprint({"data": data}, cache=cache) == first
    poison(cache, data)
    assert fingerprint({"data": data}, cache=cache) != first
    assert fingerprint({"data": data}) == first


def test_full_reads_everything_and_heals_the_cache(tmp_path: Path, data: Path) -> None:
    cache = FingerprintCache(tmp_path / "cache.db", clock=later())
    first = fingerprint({"data": data}, cache=cache)
    poison(cache, data)
    assert fingerprint({"data": data}, cache=cache, full=True) == first
    assert fingerprint({"data": data}, cache=cache) == first


def test_the_cache_counts_as_progress(tmp_path: Path, data: Path) -> None:
    cache = FingerprintCache(tmp_path / "cache.db", clock=later())
    fingerprint({"data": data}, cache=cache)
    seen: list[Progress] = []
    (data / "scan" / "new").write_bytes(b"four")
    fingerprint({"data": data}, cache=cache, progress=seen.append)
    assert seen[-1] == Progress(3, 3, 10, 10)


def test_a_large_file_is_remembered_whole(tmp_path: Path) -> None:
    cache = FingerprintCache(tmp_path / "cache.db", clock=later())
    folder = plant(tmp_path / "data", {"a": b"x"})
    os.truncate(folder / "a", 130 * MIB)
    first = fingerprint({"data": folder}, cache=cache)
    assert len(remembered(cache, folder)) == 1
    assert fingerprint({"data": folder}, cache=cache) == first


@pytest.mark.parametrize("part", ["data", "data/scan/a.bin"])
def test_a_change_that_keeps_size_and_mtime_is_seen(tmp_path: Path, data: Path, part: str) -> None:
    cache = FingerprintCache(tmp_path / "cache.db", clock=later())
    victim, parts = data / "scan" / "a.bin", {"data": tmp_path / part}
    before = victim.stat()
    first = fingerprint(parts, cache=cache)
    while victim.stat().st_ctime_ns == before.st_ctime_ns:
        victim.write_bytes(b"xyz")
        os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert victim.stat().st_mtime_ns == before.st_mtime_ns
    assert fingerprint(parts, cache=cache).digest == reference(parts) != first.digest


@pytest.mark.parametrize(("ahead", "known"), [(-5, 0), (0, 0), (1.5, 0), (30, 2)])
def test_a_file_younger_than_two_seconds_is_not_remembered(
    tmp_path: Path, data: Path, ahead: float, known: int
) -> None:
    made = (data / "scan" / "b.bin").stat().st_ctime_ns
    cache = FingerprintCache(tmp_path / "cache.db", clock=lambda: made + int(ahead * 1e9))
    fingerprint({"data": data}, cache=cache)
    assert len(remembered(cache, data)) == known


def test_an_old_mtime_does_not_hide_a_young_ctime(tmp_path: Path, data: Path) -> None:
    for path in (data / "scan").iterdir():
        os.utime(path, ns=(0, 0))
    cache = FingerprintCache(tmp_path / "cache.db")
    fingerprint({"data": data}, cache=cache)
    assert remembered(cache, data) == {}


def test_what_is_gone_is_forgotten_and_neighbours_are_kept(tmp_path: Path, data: Path) -> None:
    cache = FingerprintCache(tmp_path / "cache.db", clock=later())
    neighbour = plant(tmp_path / "data2", {"a": b"1"})
    fingerprint({"data": data}, cache=cache)
    fingerprint({"data": neighbour}, cache=cache)
    (data / "scan" / "a.bin").unlink()
    (data / "scan" / "b.bin").write_bytes(b"changed")
    fingerprint({"data": data}, cache=cache)
    assert len(remembered(cache, data)) == 1
    assert len(remembered(cache, neighbour)) == 1


def test_only_the_owner_may_read_the_cache(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "cache.db"
    path.touch(mode=0o644)
    cache = FingerprintCache(path, clock=later())
    before = os.umask(0)
    try:
        fingerprint({"data": data}, cache=cache)
        with sqlite3.connect(path) as other:
            other.execute("BEGIN IMMEDIATE")
            modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in tmp_path.glob("cache.db*")}
        other.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["cache.db", "cache.db-wal", "cache.db-shm"], 0o600)


def test_the_cache_holds_no_content(tmp_path: Path) -> None:
    folder = plant(tmp_path / "data", {"a": b"the patient's name"})
    cache = FingerprintCache(tmp_path / "cache.db", clock=later())
    fingerprint({"data": folder}, cache=cache)
    assert b"patient" not in (tmp_path / "cache.db").read_bytes()
