"""The folder that most tests of fingerprints start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.housecall.fingerprint.world import plant


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return plant(tmp_path / "data", {"scan/a.bin": b"abc", "scan/b.bin": b"def", "empty": None})
