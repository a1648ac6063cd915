"""A model: a probability for every case of `cases.csv` (case,value).

To try it without a container: VOLUMES=FOLDER python3 project/infer.py
"""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

VOLUMES = Path(os.environ.get("VOLUMES", "/mlcommons/volumes"))


def infer() -> None:
    settings = parameters()
    center, slope = float(settings.get("center", 0.5)), float(settings.get("slope", 4))
    with (VOLUMES / "data" / "cases.csv").open(encoding="utf-8", newline="") as file:
        cases = [row for row in csv.reader(file) if row][1:]
    target = VOLUMES / "predictions" / "predictions.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "probability"])
        for case, value in cases:
            writer.writerow([case, predict(float(value), center, slope)])
    print(f"predicted {len(cases)} cases")


def predict(value: float, center: float, slope: float) -> float:
    """Your model goes here. Its weights belong into the additional files or the image."""
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, slope * (value - center)))))


def parameters() -> dict[str, str]:
    """Flat `name: value` lines; use a YAML library for more than that."""
    path = VOLUMES / "parameters" / "parameters_file.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    pairs = (line.split("#")[0].partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


if __name__ == "__main__":
    infer()
