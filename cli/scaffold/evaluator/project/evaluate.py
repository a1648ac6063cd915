"""An evaluator: metrics from `predictions.csv` (case,probability) and `labels.csv` (case,label).

To try it without a container: VOLUMES=FOLDER python3 project/evaluate.py
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

VOLUMES = Path(os.environ.get("VOLUMES", "/mlcommons/volumes"))


def evaluate() -> None:
    """Only what may leave the site is written."""
    threshold = float(parameters().get("threshold", 0.5))
    predictions = dict(read(VOLUMES / "predictions" / "predictions.csv"))
    labels = dict(read(VOLUMES / "labels" / "labels.csv"))
    judged = {case: float(predictions[case]) for case in labels if case in predictions}
    if not judged:
        sys.exit("expected predictions of the labelled cases, got none")
    right = sum((judged[case] >= threshold) == (labels[case] == "1") for case in judged)
    metrics = {"cases": len(judged), "accuracy": right / len(judged)}
    target = VOLUMES / "results" / "results.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")  # JSON is YAML, too
    print(f"judged {len(judged)} cases")


def parameters() -> dict[str, str]:
    """Flat `name: value` lines; use a YAML library for more than that."""
    path = VOLUMES / "parameters" / "parameters_file.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = (line.split("#")[0].partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


def read(path: Path) -> list[list[str]]:
    """The rows below the header."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.reader(file) if row][1:]


if __name__ == "__main__":
    evaluate()
