"""What the caller is told meanwhile, and that it may end the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from housecall.fingerprint import Progress, fingerprint, pool
from tests.housecall.fingerprint.world import MIB, plant


def test_progress_ends_complete(data: Path) -> None:
    seen: list[Progress] = []
    fingerprint({"data": data, "labels": data}, progress=seen.append)
    assert seen[-1] == Progress(files_done=2, files_total=2, bytes_done=6, bytes_total=6)


def test_progress_only_grows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pool, "TICK_S", 0.001)
    seen: list[Progress] = []
    folder = plant(tmp_path / "data", {str(n): b"x" * 50_000 for n in range(400)})
    os.truncate(folder / "0", 200 * MIB)
    fingerprint({"data": folder}, progress=seen.append)
    assert len(seen) > 2
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)
    assert [p.files_done for p in seen] == sorted(p.files_done for p in seen)
    assert seen[-1].bytes_done == seen[-1].bytes_total == 200 * MIB + 399 * 50_000
    assert seen[-1].files_done == seen[-1].files_total == 400


def test_progress_may_end_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Cancelled(Exception):
        pass

    def cancel(progress: Progress) -> None:
        assert progress.bytes_done < progress.bytes_total
        raise Cancelled

    monkeypatch.setattr(pool, "TICK_S", 0.001)
    folder = plant(tmp_path / "data", {"a": b"x"})
    os.truncate(folder / "a", 1024 * MIB)
    with pytest.raises(Cancelled):
        fingerprint({"data": folder}, progress=cancel, threads=2)
