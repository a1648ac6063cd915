"""The documentation as the tests read it: pages, their tables, the files that git knows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_CODE = re.compile(r"`([^`\n]+)`")


def page(name: str) -> str:
    """The text of `docs/<name>`."""
    return (DOCS / name).read_text(encoding="utf-8")


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table in a page, titles and rules left out."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if line.startswith("|") and not _is_rule(line) and not _is_rule(following):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def keyed_rows(text: str) -> dict[str, list[str]]:
    """Rows whose first cell is one word in backticks, by that word; each word once."""
    found: dict[str, list[str]] = {}
    for cells in rows(text):
        key = _CODE.fullmatch(cells[0])
        if key:
            assert key[1] not in found, f"{key[1]} has two rows: keep one"
            found[key[1]] = cells
    return found


def codes_in(cell: str) -> set[str]:
    """Everything in backticks."""
    return set(_CODE.findall(cell))


def known_files() -> list[Path]:
    """Files that git tracks, or would: below the root, without what is ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / line for line in listed.stdout.splitlines())
    return sorted({path for path in paths if path.is_file() and not path.is_symlink()})


def _is_rule(line: str) -> bool:
    return bool(re.fullmatch(r"\|[\s:|-]+\|", line.strip()))
