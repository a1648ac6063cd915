"""Task `prepare`: writes `data.csv`, `labels.csv`, `review.csv` and the report; may be run again.

1. A case that already is in `data.csv` is kept as it stands, edits made by hand included.
2. A malformed line goes to `review.csv`. With `malformed: drop` it is dropped at once; with
   `malformed: review` a person fills its column `resolution`: `drop`, or `fixed` after putting
   the cells of that line right. The next run takes it from there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .tables import CASE, RawRow, Refused, features, raw_labels, raw_rows, value_fault

READY, DROPPED, WAITING = 2, -1, -2
STATUS_NAMES = {READY: "ready", DROPPED: "dropped", WAITING: "waits for review"}
Table = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Raw:
    data: Path
    labels: Path


@dataclass(frozen=True)
class Prepared:
    """The prepared folders; every table is keyed by case."""

    data: Path
    labels: Path

    @property
    def cases_file(self) -> Path:
        return self.data / "data.csv"

    @property
    def review_file(self) -> Path:
        return self.data / "review.csv"

    @property
    def labels_file(self) -> Path:
        return self.labels / "labels.csv"


def run(raw: Raw, prepared: Prepared, report: Path, parameters: dict[str, Any]) -> None:
    columns = features(parameters)
    labels = raw_labels(raw.labels, parameters)
    rows = list(raw_rows(raw.data, parameters))
    _mark_faults(rows, labels)
    kept = _complete(read_table(prepared.cases_file), columns)
    review = _review(rows, read_table(prepared.review_file), columns, parameters["malformed"])
    wanted = [row for row in rows if not row.fault] + _fixed(review, columns)
    print(f"{len(rows)} lines read, {len(kept)} cases kept from before", flush=True)
    _convert(wanted, kept, prepared.cases_file, columns)
    write_table(prepared.cases_file, [CASE, *columns], kept)
    prior = read_table(prepared.labels_file)
    of_case = {case: prior.get(case) or {"malignant": labels[case]} for case in kept}
    write_table(prepared.labels_file, [CASE, "malignant"], of_case)
    if review:
        fields = [CASE, "where", "fault", "resolution", *columns]
        write_table(prepared.review_file, fields, review)
    _report(report, kept, review)
    print(f"{len(kept)} cases prepared, {len(review)} malformed lines", flush=True)


def read_table(path: Path) -> Table:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as handle:
        return {row.pop(CASE): row for row in csv.DictReader(handle)}


def write_table(path: Path, fields: list[str], table: Table) -> None:
    """Sorted by case, and in one move: a reader never sees half a table."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fields, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({CASE: case, **table[case]} for case in sorted(table))
    partial.replace(path)


def _mark_faults(rows: list[RawRow], labels: dict[str, str]) -> None:
    seen: set[str] = set()
    for row in rows:
        if not row.fault and row.case_id in seen:
            row.fault = "the case occurs twice"
        elif not row.fault and row.case_id not in labels:
            row.fault = "the case has no label"
        seen.add(row.case_id)


def _complete(table: Table, columns: list[str]) -> Table:
    """Without the line that a killed run left half written."""
    return {
        case: cells
        for case, cells in table.items()
        if None not in cells.values() and set(columns) <= set(cells)
    }


def _review(rows: Iterable[RawRow], before: Table, columns: list[str], policy: str) -> Table:
    if policy not in ("drop", "review"):
        raise Refused(f"parameter malformed: expected drop or review, got {policy!r}")
    review = dict(before)
    for row in rows:
        if row.fault and row.case_id not in review:
            cells = {name: row.cells.get(name, "") for name in columns}
            resolution = "drop" if policy == "drop" else ""
            review[row.case_id] = {
                "where": row.where,
                "fault": row.fault,
                "resolution": resolution,
                **cells,
            }
            print(f"malformed line {row.where}: {row.fault}", flush=True)
    return review


def _fixed(review: Table, columns: list[str]) -> list[RawRow]:
    """Lines that a person put right; still wrong ones are refused with the reason."""
    fixed = []
    for case, line in review.items():
        if line["resolution"].strip() not in ("", "drop", "fixed"):
            raise Refused(
                f"review.csv, case {case}: expected drop or fixed, got {line['resolution']!r}"
            )
        if line["resolution"].strip() == "fixed":
            cells = {name: line[name].strip() for name in columns}
            fault = next(filter(None, (value_fault(k, v) for k, v in cells.items())), "")
            if fault:
                raise Refused(f"review.csv, case {case} is marked fixed, but {fault}")
            fixed.append(RawRow(case, line["where"], cells))
    return fixed


def _convert(wanted: list[RawRow], kept: Table, path: Path, columns: list[str]) -> None:
    """Appends case by case, so that a run that is killed loses nothing it had done."""
    write_table(path, [CASE, *columns], kept)
    todo = [row for row in wanted if row.case_id not in kept]
    with path.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [CASE, *columns], lineterminator="\n")
        for number, row in enumerate(todo, start=1):
            writer.writerow({CASE: row.case_id, **row.cells})
            handle.flush()
            kept[row.case_id] = row.cells
            if number % 20 == 0 or number == len(todo):
                print(f"{number} of {len(todo)} cases converted", flush=True)


def _report(path: Path, kept: Table, review: Table) -> None:
    status = dict.fromkeys(kept, READY)
    comment = dict.fromkeys(kept, "")
    for case, line in review.items():
        if case not in kept:
            status[case] = DROPPED if line["resolution"].strip() == "drop" else WAITING
        comment[case] = f"{line['where']}: {line['fault']}"
    cases = sorted(status)
    table = {
        "status": {case: status[case] for case in cases},
        "status_name": {case: STATUS_NAMES[status[case]] for case in cases},
        "comment": {case: comment[case] for case in cases},
    }
    path.write_text(yaml.safe_dump(table, sort_keys=False))
