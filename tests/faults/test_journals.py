"""What of a site has not ended is found in its journal, and one that cannot be read is no end."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from agent.journal import Journal
from agent.records import KeptStep
from tests.faults.journals import open_work
from tests.faults.sites import Site


def test_a_step_that_runs_and_a_journal_that_cannot_be_read(tmp_path: Path) -> None:
    site = cast(Site, SimpleNamespace(name="north", journal=tmp_path / "journal.sqlite"))
    assert open_work(site) == ["north: the journal cannot be read"]
    kept = KeptStep("execution:1", "infer", "RUNNING", b"", digest="sha256:0", container="c")
    with closing(Journal(site.journal)) as journal:
        assert open_work(site) == []
        journal.set_step(kept)
        assert open_work(site) == ["north: step infer of execution:1 runs"]
