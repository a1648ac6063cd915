"""Gradient boosting over the training medians of what was not measured."""

from __future__ import annotations

import csv
from pathlib import Path

import joblib
import yaml

VOLUMES = Path("/mlcommons/volumes")


def main() -> None:
    parameters = yaml.safe_load((VOLUMES / "parameters/parameters_file.yaml").read_text())
    trained = joblib.load(VOLUMES / "additional_files/model.joblib")
    with (VOLUMES / "data/data.csv").open(newline="", encoding="utf-8") as handle:
        cases = list(csv.DictReader(handle))
    rows = [[float(case[name] or "nan") for name in trained["features"]] for case in cases]
    size = parameters["cases_at_once"]
    with (VOLUMES / "predictions/predictions.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["case_id", "probability"])
        for begin in range(0, len(rows), size):
            values = trained["model"].predict_proba(rows[begin : begin + size])[:, 1]
            for case, value in zip(cases[begin : begin + size], values, strict=True):
                writer.writerow([case["case_id"], f"{value:.6f}"])
            print(f"{min(begin + size, len(rows))} of {len(rows)} cases predicted", flush=True)


if __name__ == "__main__":
    main()
