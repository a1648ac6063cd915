"""Random forest; it was trained on complete cases only and refuses any other (exit code 2)."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import joblib
import yaml

VOLUMES = Path("/mlcommons/volumes")
INCOMPLETE_INPUT = 2


def main() -> int:
    parameters = yaml.safe_load((VOLUMES / "parameters/parameters_file.yaml").read_text())
    with (VOLUMES / "data/data.csv").open(newline="", encoding="utf-8") as handle:
        cases = list(csv.DictReader(handle))
    incomplete = sum("" in case.values() for case in cases)
    if incomplete:
        print(
            f"random_forest: {incomplete} of {len(cases)} cases have missing values, and this model"
            " accepts complete cases only",
            file=sys.stderr,
        )
        return INCOMPLETE_INPUT
    trained = joblib.load(VOLUMES / "additional_files/model.joblib")
    model = trained["model"].set_params(n_jobs=parameters["workers"])
    rows = [[float(case[name]) for name in trained["features"]] for case in cases]
    values = model.predict_proba(rows)[:, 1]
    with (VOLUMES / "predictions/predictions.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["case_id", "probability"])
        for case, value in zip(cases, values, strict=True):
            writer.writerow([case["case_id"], f"{value:.6f}"])
    print(f"{len(cases)} cases predicted", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
