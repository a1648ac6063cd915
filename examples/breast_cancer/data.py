"""Splits the 569 cases over a training part and four sites, and writes each site's raw folders.

Every site writes in a dialect of its own, as hospitals do; `dialects.py` says which. The split
depends on nothing but the case's number, so that it is the same everywhere and for ever.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sklearn.datasets import load_breast_cancer

from examples.breast_cancer.dialects import DIALECTS, Dialect

SITE_SIZES = {"north": 90, "south": 80, "east": 70, "reference": 60}
MEASURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave_points",
    "symmetry",
    "fractal_dimension",
)
FEATURES = tuple(f"{measure}_{kind}" for kind in ("mean", "error", "worst") for measure in MEASURES)


@dataclass(frozen=True)
class Case:
    """One patient: `values` in the order of FEATURES, `malignant` as found by biopsy."""

    case_id: str
    values: tuple[float, ...]
    malignant: bool


@cache
def training_part() -> tuple[Case, ...]:
    """What the models learn from; none of it is at any site."""
    return _parts()["training"]


def site_part(site: str) -> tuple[Case, ...]:
    """The true cases of a site, before its dialect damages any."""
    return _parts()[site]


@cache
def _parts() -> dict[str, tuple[Case, ...]]:
    source = load_breast_cancer()
    order = sorted(range(len(source.target)), key=_lot)
    parts: dict[str, tuple[Case, ...]] = {}
    begin = 0
    for name, size in [*SITE_SIZES.items(), ("training", len(order) - sum(SITE_SIZES.values()))]:
        numbers = order[begin : begin + size]
        parts[name] = tuple(
            Case(
                case_id=f"{name[0].upper()}{place:03d}",
                values=tuple(float(value) for value in source.data[number]),
                malignant=source.target_names[source.target[number]] == "malignant",
            )
            for place, number in enumerate(numbers, start=1)
        )
        begin += size
    return parts


def _lot(number: int) -> str:
    return hashlib.sha256(f"breast cancer case {number}".encode()).hexdigest()


def write_sites(out_dir: Path) -> dict[str, Path]:
    """Write `<site>/data/*` and `<site>/labels/*` for every site; returns the sites' folders."""
    sites = {site: out_dir / site for site in SITE_SIZES}
    for site, folder in sites.items():
        write_site(site, folder)
    return sites


def write_site(site: str, folder: Path) -> None:
    dialect = DIALECTS[site]
    cases = site_part(site)
    rows = [[case.case_id, *map(repr, case.values)] for case in cases]
    dialect.damage(rows, list(FEATURES))
    header = ["case_id", *FEATURES]
    files = list(dialect.data_files)
    share = -(-len(rows) // len(files))
    for place, name in enumerate(files):
        part = rows[place * share : (place + 1) * share]
        _write(folder / "data" / name, dialect.table(header, part))
    labels = [[case.case_id, dialect.label_words[case.malignant]] for case in cases]
    _write(folder / "labels" / dialect.label_file, _text(dialect, dialect.label_columns, labels))


def _text(dialect: Dialect, header: tuple[str, ...], rows: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=dialect.separator, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def _write(path: Path, text: str) -> None:
    """World-readable whatever the umask: containers read it as another user."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in (path.parent.parent, path.parent):
        folder.chmod(0o755)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.breast_cancer.data")
    parser.add_argument("out_dir", type=Path, help="receives a folder for every site")
    for site, folder in write_sites(parser.parse_args().out_dir).items():
        files = ", ".join(sorted(path.name for path in (folder / "data").iterdir()))
        print(f"{site}: {len(site_part(site))} cases in {files}")


if __name__ == "__main__":
    main()
