"""A preparation: prepare, sanity_check, statistics.

Raw: `cases.csv` (case,value) and `labels.csv` (case,label). Prepared: the same two files, with one
line a case. A case without a label waits for a person, who writes it into the prepared labels.

To try it without a container: VOLUMES=FOLDER python3 project/main.py prepare
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

VOLUMES = Path(os.environ.get("VOLUMES", "/mlcommons/volumes"))
CASES, LABELS = VOLUMES / "data" / "cases.csv", VOLUMES / "labels" / "labels.csv"


def prepare() -> None:
    """Labels that are there already are kept: a person may have written them."""
    cases = {case: str(float(value)) for case, value in read(VOLUMES / "raw_data/cases.csv")}
    known = dict(read(VOLUMES / "raw_labels" / "labels.csv")) | dict(read(LABELS))
    write(CASES, "value", cases)
    write(LABELS, "label", {case: known.get(case, "") for case in cases})
    report({case: bool(known.get(case)) for case in cases})
    print(f"prepared {len(cases)} cases")


def sanity_check() -> None:
    """Every case has a label; anything else ends with an exit code other than 0."""
    labels = dict(read(LABELS))
    missing = [case for case, _ in read(CASES) if labels.get(case) not in ("0", "1")]
    if missing:
        sys.exit(f"{len(missing)} cases: expected a label 0 or 1, got none; see the report")


def statistics() -> None:
    """Only what may leave the site."""
    positive = parameters().get("positive_label", "1")
    labels = [label for _, label in read(LABELS)]
    found = {"cases": len(labels), "positive": labels.count(positive)}
    save(VOLUMES / "statistics" / "statistics.yaml", found)


def report(complete: dict[str, bool]) -> None:
    """What waits for a person, case by case."""
    waiting = [case for case, done in complete.items() if not done]
    columns = {
        "status": {case: 1 if done else -1 for case, done in complete.items()},
        "status_name": {case: "DONE" if done else "UNLABELLED" for case, done in complete.items()},
        "comment": dict.fromkeys(waiting, "write its label into labels.csv"),
    }
    save(VOLUMES / "report" / "report.yaml", columns)


def parameters() -> dict[str, str]:
    """Flat `name: value` lines; use a YAML library for more than that."""
    path = VOLUMES / "parameters" / "parameters_file.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = (line.split("#")[0].partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


def read(path: Path) -> list[list[str]]:
    """The rows below the header; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.reader(file) if row][1:]


def write(path: Path, column: str, values: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["case", column], *values.items()])


def save(path: Path, content: object) -> None:
    """JSON is YAML, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    {"prepare": prepare, "sanity_check": sanity_check, "statistics": statistics}[sys.argv[1]]()
