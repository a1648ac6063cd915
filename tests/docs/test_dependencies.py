"""Every dependency that runs at a hospital has its reason in the decision about dependencies."""

from __future__ import annotations

import re
import tomllib

from tests.docs.pages import ROOT, page, rows


def test_every_dependency_has_its_reason_and_no_row_is_of_nothing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=!~ \[]", each)[0] for each in project["dependencies"]}
    table = rows(page("adr/0012-dependencies.md"))
    named = {name for cells in table for name in cells[0].split(" (")[0].split(", ")}
    assert named == wanted
