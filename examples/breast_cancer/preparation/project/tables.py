"""Reads a site's tables: finds the separator, the decimal mark and which column is which."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEPARATORS = ("\t", ";", ",")
CASE = "case_id"


class Refused(Exception):
    """The task cannot succeed as things are; the message tells a person what to do."""


@dataclass
class RawRow:
    """A line of a site's table under canonical names, and what is wrong with it, if anything."""

    case_id: str
    where: str
    cells: dict[str, str]
    fault: str = ""


def features(parameters: dict[str, Any]) -> list[str]:
    """Canonical feature names, in the order of the prepared table."""
    return [f"{name}_{kind}" for kind in parameters["kinds"] for name in parameters["measures"]]


def raw_rows(folder: Path, parameters: dict[str, Any]) -> Iterator[RawRow]:
    """All lines of all tables in `folder`, in the order of file names."""
    names = column_names(parameters)
    for path in _files(folder):
        lines, separator = _lines(path)
        header = [names.get(_plain(cell)) for cell in lines[0]]
        unknown = [cell for cell, name in zip(lines[0], header, strict=True) if name is None]
        absent = {CASE, *features(parameters)}.difference(name for name in header if name)
        if unknown or absent:
            raise Refused(
                f"{path.name}: unknown columns {unknown}, absent columns {sorted(absent)};"
                " add the site's spelling to the aliases in the parameters"
            )
        for number, line in enumerate(lines[1:], start=2):
            yield _row(line, [name or "" for name in header], f"{path.name}:{number}", separator)


def raw_labels(folder: Path, parameters: dict[str, Any]) -> dict[str, str]:
    """Case -> "1" (malignant) or "0", from every site's words for them."""
    words = {
        str(word).lower(): label
        for label, key in (("1", "malignant"), ("0", "benign"))
        for word in parameters["labels"][key]
    }
    found: dict[str, str] = {}
    for path in _files(folder):
        lines, _ = _lines(path)
        for number, line in enumerate(lines[1:], start=2):
            if len(line) != 2 or line[1].strip().lower() not in words:
                raise Refused(f"{path.name}:{number}: expected a case and a known label")
            found[line[0].strip()] = words[line[1].strip().lower()]
    return found


def column_names(parameters: dict[str, Any]) -> dict[str, str]:
    """Every accepted spelling, made plain -> canonical column name."""
    names = {_plain(alias): CASE for alias in [CASE, *parameters["case_id"]]}
    for measure, measure_aliases in parameters["measures"].items():
        for kind, kind_aliases in parameters["kinds"].items():
            for first in [measure, *measure_aliases]:
                for second in [kind, *kind_aliases]:
                    names[_plain(f"{first} {second}")] = f"{measure}_{kind}"
    return names


def value_fault(name: str, text: str) -> str:
    """What is wrong with one cell: empty is lawful (not measured), a negative number is not."""
    if text == "":
        return ""
    if not re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text):
        return f"{name}: {text!r} is not a number"
    return f"{name}: {text} is below zero" if float(text) < 0 else ""


def _row(line: list[str], header: list[str], where: str, separator: str) -> RawRow:
    cells = dict(zip(header, (cell.strip() for cell in line), strict=False))
    if separator != ",":
        cells = {k: v if k == CASE else v.replace(",", ".") for k, v in cells.items()}
    row = RawRow(cells.pop(CASE, "") or where, where, cells)
    if len(line) != len(header):
        row.fault = f"expected {len(header)} cells, got {len(line)}"
    else:
        row.fault = next(filter(None, (value_fault(k, v) for k, v in cells.items())), "")
    return row


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".csv", ".tsv", ".txt"))
    if not files:
        raise Refused(f"no .csv, .tsv or .txt file in the mounted folder {folder}")
    return files


def _lines(path: Path) -> tuple[list[list[str]], str]:
    text = path.read_text(encoding="utf-8-sig")
    first = text.splitlines()[0] if text else ""
    separator = next((mark for mark in SEPARATORS if mark in first), "")
    if not separator:
        raise Refused(f"{path.name}: the first line has no tab, semicolon or comma")
    return [line for line in csv.reader(text.splitlines(), delimiter=separator) if line], separator


def _plain(name: str) -> str:
    """Spelling without case, spaces and marks: "Radius Mean", "radius_mean", "radius.mean"."""
    return re.sub(r"[\W_]+", "", name).lower()
