"""Task `statistics`: counts and moments that describe the dataset without showing a case."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import yaml

from .prepare import Prepared, read_table


def run(prepared: Prepared, out: Path, parameters: dict[str, Any]) -> None:
    cases = read_table(prepared.cases_file)
    labels = [line["malignant"] for line in read_table(prepared.labels_file).values()]
    review = read_table(prepared.review_file).values()
    summary = {
        "cases": len(cases),
        "malignant": labels.count("1"),
        "benign": labels.count("0"),
        "malformed_rows_dropped": sum(line["resolution"].strip() == "drop" for line in review),
        "missing_values": sum(list(cells.values()).count("") for cells in cases.values()),
        "features": {
            name: moments([float(cells[name]) for cells in cases.values() if cells[name]])
            for name in parameters["described_features"]
        },
    }
    out.write_text(yaml.safe_dump(summary, sort_keys=False))
    print(f"statistics of {len(cases)} cases written", flush=True)


def moments(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation (divisor n - 1)."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    return {"mean": round(mean, 6), "std": round(sqrt(variance), 6)}
