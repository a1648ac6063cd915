from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.notices import Notices, watching


@pytest.fixture
def notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notices]:
    """This process is watched as by systemd."""
    with watching(tmp_path, monkeypatch) as made:
        yield made
