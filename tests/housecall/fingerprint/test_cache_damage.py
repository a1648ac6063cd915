"""A cache that is damaged, foreign, shared or killed in the middle of writing."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from housecall.fingerprint import FingerprintCache, fingerprint
from tests.housecall.fingerprint.reference import reference
from tests.housecall.fingerprint.world import later, plant, remembered


def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path) -> None:
    """Every region of the file in turn is overwritten or cut off."""
    folder = plant(tmp_path / "data", {f"{n:03d}": b"%d" % n for n in range(200)})
    expected = reference({"data": folder})
    path = tmp_path / "cache.db"
    fingerprint({"data": folder}, cache=FingerprintCache(path, clock=later()))
    sound = path.read_bytes()
    for at in range(0, len(sound), 509):
        for damaged in (
            sound[:at] + bytes(byte ^ 0xFF for byte in sound[at : at + 8]) + sound[at + 8 :],
            sound[:at],
        ):
            path.write_bytes(damaged)
            cache = FingerprintCache(path, clock=later())
            assert fingerprint({"data": folder}, cache=cache).digest == expected
            assert fingerprint({"data": folder}, cache=cache).digest == expected


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0", b""])
def test_a_file_that_is_no_cache_is_replaced(tmp_path: Path, data: Path, content: bytes) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(content)
    cache = FingerprintCache(path, clock=later())
    for _ in range(2):
        assert fingerprint({"data": data}, cache=cache).digest == reference({"data": data})
    assert len(remembered(cache, data)) == 2


def test_a_cache_of_another_format_is_replaced(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    cache = FingerprintCache(path, clock=later())
    fingerprint({"data": data}, cache=cache)
    assert len(remembered(cache, data)) == 2
    assert caplog.messages == [f"fingerprint cache {path} thrown away: expected format 1, got 99"]


@pytest.mark.parametrize("where", ["gone/cache.db", "data"])
def test_a_cache_that_cannot_be_opened_is_not_used(
    tmp_path: Path, data: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FingerprintCache(tmp_path / where, clock=later())
    assert fingerprint({"data": data}, cache=cache).digest == reference({"data": data})
    assert f"fingerprint cache {tmp_path / where} not used: " in caplog.messages[0]


CHILD = """
import os, signal, sys, time
from pathlib import Path
from housecall.fingerprint import FingerprintCache, fingerprint
def die(progress):
    os.kill(os.getpid(), signal.SIGKILL)
cache = FingerprintCache(Path(sys.argv[2]), clock=lambda: time.time_ns() + 60 * 10**9)
fingerprint({"data": Path(sys.argv[1])}, cache=cache, progress=die)
"""


def test_what_was_saved_survives_kill_9(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "cache.db"
    child = [sys.executable, "-c", CHILD, str(data), str(path)]
    assert subprocess.run(child, check=False).returncode == -signal.SIGKILL
    cache = FingerprintCache(path, clock=later())
    assert len(remembered(cache, data)) == 2
    assert fingerprint({"data": data}, cache=cache).digest == reference({"data": data})


BUSY_CHILD = """
import itertools, sys
from pathlib import Path
from housecall.fingerprint import FingerprintCache
cache = FingerprintCache(Path(sys.argv[1]))
for round in itertools.count():
    rows = {b"/data/%d\\0" % number + bytes(40): b"%064d" % round for number in range(300)}
    cache.save(rows, 10**19)
    print(round, flush=True)
"""


def test_kill_9_in_the_middle_of_writing_leaves_a_sound_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    for rounds in range(1, 6):
        child = subprocess.Popen(
            [sys.executable, "-c", BUSY_CHILD, str(path)], stdout=subprocess.PIPE
        )
        assert child.stdout
        with child, child.stdout as output:
            for _ in range(rounds):
                output.readline()
            child.kill()
        rows = FingerprintCache(path).load([b"/data"])
        assert len(rows) == 300
        assert len(set(rows.values())) == 1
    assert caplog.messages == []


def test_several_threads_may_share_a_cache(tmp_path: Path) -> None:
    cache = FingerprintCache(tmp_path / "cache.db", clock=later())
    folders = [plant(tmp_path / f"data{n}", {"a": b"%d" % n}) for n in range(4)]
    threads = [
        threading.Thread(target=fingerprint, args=({"data": folder},), kwargs={"cache": cache})
        for folder in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(remembered(cache, folder)) for folder in folders] == [1, 1, 1, 1]
