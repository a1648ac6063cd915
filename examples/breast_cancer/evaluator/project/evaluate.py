"""Accuracy, AUC, sensitivity and specificity, each with a confidence interval.

Proportions: Wilson's score interval (1927). AUC: DeLong, DeLong and Clarke-Pearson (1988).
"""

from __future__ import annotations

import csv
import sys
from math import sqrt
from pathlib import Path
from statistics import NormalDist, fmean, variance

import yaml

VOLUMES = Path("/mlcommons/volumes")
Metric = dict[str, float]


class Refused(Exception):
    """Predictions and labels do not allow a fair verdict."""


def read_column(path: Path, column: str) -> dict[str, float]:
    with path.open(newline="", encoding="utf-8") as handle:
        return {row["case_id"]: float(row[column]) for row in csv.DictReader(handle)}


def metrics(
    predictions: dict[str, float],
    labels: dict[str, float],
    *,
    threshold: float,
    confidence: float,
) -> dict[str, int | Metric]:
    lacking = len(labels.keys() - predictions.keys())
    unasked = len(predictions.keys() - labels.keys())
    if lacking or unasked:
        raise Refused(f"{lacking} labelled cases lack a prediction, {unasked} have no label")
    if any(not 0 <= value <= 1 for value in predictions.values()):
        raise Refused("expected probabilities from 0 to 1")
    positive = [predictions[case] for case, label in labels.items() if label == 1]
    negative = [predictions[case] for case, label in labels.items() if label == 0]
    if len(positive) < 2 or len(negative) < 2:
        raise Refused("expected at least two malignant and two benign cases")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    found = sum(value >= threshold for value in positive)
    cleared = sum(value < threshold for value in negative)
    return {
        "cases": len(labels),
        "accuracy": wilson(found + cleared, len(labels), z),
        "auc": delong(positive, negative, z),
        "sensitivity": wilson(found, len(positive), z),
        "specificity": wilson(cleared, len(negative), z),
    }


def wilson(successes: int, trials: int, z: float) -> Metric:
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2) / (1 + z * z / trials)
    return _metric(share, centre - half, centre + half)


def delong(positive: list[float], negative: list[float], z: float) -> Metric:
    wins_of_positive = [fmean(_win(p, n) for n in negative) for p in positive]
    wins_over_negative = [fmean(_win(p, n) for p in positive) for n in negative]
    area = fmean(wins_of_positive)
    spread = variance(wins_of_positive) / len(positive) + variance(wins_over_negative) / len(
        negative
    )
    return _metric(area, area - z * sqrt(spread), area + z * sqrt(spread))


def _win(positive: float, negative: float) -> float:
    return 1.0 if positive > negative else 0.5 if positive == negative else 0.0


def _metric(value: float, low: float, high: float) -> Metric:
    return {
        "value": round(value, 6),
        "low": round(max(low, 0.0), 6),
        "high": round(min(high, 1.0), 6),
    }


def main() -> int:
    parameters = yaml.safe_load((VOLUMES / "parameters/parameters_file.yaml").read_text())
    try:
        found = metrics(
            read_column(VOLUMES / "predictions/predictions.csv", "probability"),
            read_column(VOLUMES / "labels/labels.csv", "malignant"),
            threshold=parameters["threshold"],
            confidence=parameters["confidence"],
        )
    except Refused as reason:
        print(f"evaluate: {reason}", file=sys.stderr)
        return 1
    (VOLUMES / "results/results.yaml").write_text(yaml.safe_dump(found, sort_keys=False))
    print(f"{found['cases']} cases evaluated", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
