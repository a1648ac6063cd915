"""Every relative link of the documentation leads to a file, and to a heading that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def links(path: Path) -> Iterator[str]:
    for target in _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8"))):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(path: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.relative_to(ROOT)}: {link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if anchor:
            assert anchor in anchors(target), f"{path.relative_to(ROOT)}: {link}: no such heading"


_ROOMS = "protos|housecall|coordinator|agent|cli|tests|docs|examples|bench"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(rf"`((?:{_ROOMS})/[\w./-]*)`", text):
        assert (ROOT / name).exists(), f"{path.relative_to(ROOT)}: there is no {name}"


def test_every_page_can_be_reached_from_the_index() -> None:
    seen, todo = set(), [DOCS / "index.md"]
    while todo:
        path = todo.pop()
        if path in seen or path.suffix != ".md":
            continue
        seen.add(path)
        todo += [(path.parent / link.partition("#")[0]).resolve() for link in links(path)]
    lost = {path.relative_to(ROOT) for path in DOCS.rglob("*.md")} - {
        path.relative_to(ROOT) for path in seen
    }
    assert not lost, f"docs/index.md leads to none of {sorted(map(str, lost))}"
