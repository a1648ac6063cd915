"""docs/errors.md has a row for every code that the sources can raise, of the right kind."""

from __future__ import annotations

import re

import pytest

from housecall.errors import EXIT_CODES, Kind
from housecall.rpc import STATUS
from tests.docs import codes
from tests.docs.pages import ROOT, keyed_rows, page, rows


def documented() -> dict[str, list[str]]:
    found = keyed_rows(page("errors.md"))
    return {code: cells for code, cells in found.items() if len(cells) == 4}


def test_every_code_has_its_row() -> None:
    missing = codes.raised() - documented().keys()
    assert not missing, f"docs/errors.md lacks {sorted(missing)}"


def test_no_row_is_of_nothing() -> None:
    stale = documented().keys() - codes.raised() - {"UNAUTHENTICATED"}
    assert not stale, f"docs/errors.md has codes that nothing raises: {sorted(stale)}"


def test_every_row_says_what_it_means_and_what_to_do() -> None:
    empty = [code for code, cells in documented().items() if not all(cells)]
    assert not empty


def test_kinds_are_those_of_the_sources() -> None:
    wrong = {}
    for code, names in codes.kinds().items():
        expected = {Kind[name].value for name in names}
        said = set(re.split(r", *", documented()[code][1]))
        if not expected <= said:
            wrong[code] = f"expected {sorted(expected)}, got {sorted(said)}"
    assert not wrong


def test_what_looks_like_a_code_and_is_none_is_still_there() -> None:
    texts = "\n".join((ROOT / path).read_text(encoding="utf-8") for path in codes.modules())
    stale = {text for text in codes.NOT_CODES if f'"{text}"' not in texts}
    assert not stale, f"tests/docs/codes.py: NOT_CODES has {stale}, which no source has"


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_its_status_and_exit_code(kind: Kind) -> None:
    table = {cells[0]: cells for cells in rows(page("errors.md"))}
    _, status, exit_code, _ = table[kind.value]
    assert (status, exit_code) == (f"`{STATUS[kind].name}`", str(EXIT_CODES[kind]))
