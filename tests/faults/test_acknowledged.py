"""What sites acknowledged, read from logs that grow and break off."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.acknowledged import Acknowledged


def line(site: str, order: int) -> str:
    said = {"message": "order accepted", "site": f"spiffe://faults/site/{site}", "order": order}
    return json.dumps(said) + "\n"


def test_whole_lines_of_every_log_are_read_on(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text(line("north", 1) + "no JSON\n" + line("south", 2))
    cut = line("north", 3)
    other.write_text(cut[:30])
    acknowledged = Acknowledged([one, other])
    assert acknowledged.by("north") == {1}
    with other.open("a") as log:
        log.write(cut[30:])
    assert acknowledged.by("north") == {1, 3}
    assert acknowledged.by("south") == {2}


def test_a_line_that_a_kill_broke_off_hides_no_other(tmp_path: Path) -> None:
    log = tmp_path / "one"
    log.write_text(line("north", 1)[:-5] + line("north", 2) + line("north", 3))
    assert Acknowledged([log]).by("north") == {3}
