"""docs/statements.md has a row for every kind of statement."""

from __future__ import annotations

from coordinator.rules import RULES
from housecall.statement import KINDS, PAYLOAD_TYPE, STATEMENT_TYPE, TYPE_PREFIX
from tests.docs.pages import keyed_rows, page


def test_every_kind_has_its_row_and_no_row_is_of_nothing() -> None:
    documented = keyed_rows(page("statements.md"))
    assert documented.keys() == KINDS.keys() == RULES.keys()
    for kind, cells in documented.items():
        assert len(cells) == 4, kind
        assert all(cells), kind


def test_the_form_is_the_one_in_use() -> None:
    text = page("statements.md")
    for mark in (PAYLOAD_TYPE, STATEMENT_TYPE, TYPE_PREFIX):
        assert mark in text
