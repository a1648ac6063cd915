"""How each site of the demo writes its tables, and what is wrong with them.

The preparation container knows nothing of this file: it has the aliases in its `parameters.yaml`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass

Rows = list[list[str]]
MISSING_FEATURE = "smoothness_worst"
MISSING_EVERY = 12


@dataclass(frozen=True)
class Dialect:
    """`damage(rows, features)` spoils rows in place, before they are written in this dialect."""

    separator: str
    decimal_comma: bool
    column: Callable[[str], str]
    reordered: Callable[[list[str]], list[str]]
    data_files: tuple[str, ...]
    label_file: str
    label_columns: tuple[str, str]
    label_words: dict[bool, str]
    damage: Callable[[Rows, list[str]], None]

    def table(self, header: list[str], rows: Rows) -> str:
        """The text of one file: this site's columns, in this site's order and spelling."""
        out = io.StringIO()
        writer = csv.writer(out, delimiter=self.separator, lineterminator="\n")
        writer.writerow([self.column(name) for name in self.reordered(header)])
        for row in rows:
            cells = self.reordered(row)
            writer.writerow([c.replace(".", ",") for c in cells] if self.decimal_comma else cells)
        return out.getvalue()


GERMAN = {
    "radius": "Radius",
    "texture": "Textur",
    "perimeter": "Umfang",
    "area": "Flaeche",
    "smoothness": "Glattheit",
    "compactness": "Kompaktheit",
    "concavity": "Konkavitaet",
    "concave_points": "Konkave_Punkte",
    "symmetry": "Symmetrie",
    "fractal_dimension": "Fraktale_Dimension",
    "mean": "Mittel",
    "error": "Fehler",
    "worst": "Maximum",
}
SHORT = {
    "radius": "rad",
    "texture": "tex",
    "perimeter": "per",
    "area": "are",
    "smoothness": "smo",
    "compactness": "com",
    "concavity": "cnc",
    "concave_points": "cpt",
    "symmetry": "sym",
    "fractal_dimension": "frd",
    "mean": "m",
    "error": "se",
    "worst": "w",
}


def _translated(words: dict[str, str], case_id: str, joint: str) -> Callable[[str], str]:
    def column(name: str) -> str:
        if name == "case_id":
            return case_id
        measure, kind = name.rsplit("_", 1)
        return f"{words[measure]}{joint}{words[kind]}"

    return column


def _unchanged(cells: list[str]) -> list[str]:
    return list(cells)


def _case_last(cells: list[str]) -> list[str]:
    return [*cells[1:], cells[0]]


def _backwards(cells: list[str]) -> list[str]:
    return [cells[0], *reversed(cells[1:])]


def _intact(rows: Rows, _features: list[str]) -> None:
    """The committee's own site is clean."""


def _letter_for_digit(rows: Rows, features: list[str]) -> None:
    """A letter O typed for a zero."""
    rows[40][1 + features.index("perimeter_mean")] = "1O4.1"


def _cut_off(rows: Rows, _features: list[str]) -> None:
    """An export that broke off in the middle of a line."""
    del rows[23][9:]


def _wrong_sign_and_gaps(rows: Rows, features: list[str]) -> None:
    """A negative area, and some cells of one feature that were never measured."""
    rows[17][1 + features.index("area_mean")] = "-1"
    for row in rows[5::MISSING_EVERY]:
        row[1 + features.index(MISSING_FEATURE)] = ""


DIALECTS = {
    "north": Dialect(
        separator=",",
        decimal_comma=False,
        column=lambda name: "Patient ID" if name == "case_id" else name.replace("_", " ").title(),
        reordered=_case_last,
        data_files=("cases.csv",),
        label_file="diagnosis.csv",
        label_columns=("Patient ID", "Diagnosis"),
        label_words={True: "M", False: "B"},
        damage=_letter_for_digit,
    ),
    "south": Dialect(
        separator=";",
        decimal_comma=True,
        column=_translated(GERMAN, "Fallnummer", "_"),
        reordered=_unchanged,
        data_files=("2019.csv", "2020.csv", "2021.csv"),
        label_file="befunde.csv",
        label_columns=("Fallnummer", "Befund"),
        label_words={True: "malignant", False: "benign"},
        damage=_cut_off,
    ),
    "east": Dialect(
        separator="\t",
        decimal_comma=False,
        column=_translated(SHORT, "id", "."),
        reordered=_backwards,
        data_files=("scanner_a.csv", "scanner_b.csv"),
        label_file="labels.csv",
        label_columns=("id", "mal"),
        label_words={True: "1", False: "0"},
        damage=_wrong_sign_and_gaps,
    ),
    "reference": Dialect(
        separator=",",
        decimal_comma=False,
        column=str,
        reordered=_unchanged,
        data_files=("cases.csv",),
        label_file="labels.csv",
        label_columns=("case_id", "malignant"),
        label_words={True: "1", False: "0"},
        damage=_intact,
    ),
}
