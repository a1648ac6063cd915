"""Logistic regression in plain Python; a value that was not measured counts as the median."""

from __future__ import annotations

import csv
import json
from math import exp
from pathlib import Path
from typing import Any

import yaml

VOLUMES = Path("/mlcommons/volumes")


def probability(case: dict[str, str], weights: dict[str, Any], temperature: float) -> float:
    score = weights["intercept"]
    for place, name in enumerate(weights["features"]):
        value = float(case[name]) if case[name] else weights["median"][place]
        standard = (value - weights["mean"][place]) / weights["scale"][place]
        score += weights["coefficient"][place] * standard
    return float(1 / (1 + exp(-score / temperature)))


def main() -> None:
    weights = json.loads((VOLUMES / "additional_files/weights.json").read_text())
    parameters = yaml.safe_load((VOLUMES / "parameters/parameters_file.yaml").read_text())
    with (VOLUMES / "data/data.csv").open(newline="", encoding="utf-8") as handle:
        cases = list(csv.DictReader(handle))
    with (VOLUMES / "predictions/predictions.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["case_id", "probability"])
        for case in cases:
            value = probability(case, weights, parameters["temperature"])
            writer.writerow([case["case_id"], f"{value:.6f}"])
    print(f"{len(cases)} cases predicted", flush=True)


if __name__ == "__main__":
    main()
