"""Every container of the demo benchmark on every site's data, against independent computations."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from examples.breast_cancer.data import SITE_SIZES
from examples.breast_cancer.train import TRAINERS

from .conftest import DEMO, Campaign

SITES = tuple(SITE_SIZES)
MALFORMED = {"north": 1, "south": 1, "east": 1, "reference": 0}
pytestmark = pytest.mark.usefixtures("campaign")


def _schema(name: str) -> Any:
    return json.loads((DEMO / f"{name}.schema.json").read_text())


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def _true_rows(campaign: Campaign, site: str) -> Any:
    """Rows of scikit-learn's own table that this site prepared, found by their exact values."""
    source = load_breast_cancer()
    by_first = {tuple(row[[0, 1, 2, 3]]): number for number, row in enumerate(source.data)}
    prepared = _table(campaign.sites[site].prepared()["data_path"] / "data.csv")
    names = ("radius_mean", "texture_mean", "perimeter_mean", "area_mean")
    return [by_first[tuple(float(case[name]) for name in names)] for case in prepared]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("task", ["prepare", "sanity_check", "statistics"])
def test_preparation_succeeds(campaign: Campaign, site: str, task: str) -> None:
    outcome = campaign.outcomes[site, task]
    assert outcome.exit_code == 0, outcome.log


@pytest.mark.parametrize("site", SITES)
def test_statistics_equal_the_source(campaign: Campaign, site: str) -> None:
    source = load_breast_cancer()
    numbers = _true_rows(campaign, site)
    found = yaml.safe_load(campaign.sites[site].statistics.read_text())
    jsonschema.validate(found, _schema("statistics"))
    malignant = sum(source.target_names[source.target[number]] == "malignant" for number in numbers)
    assert found["cases"] == SITE_SIZES[site] - MALFORMED[site] == len(set(numbers))
    assert (found["malignant"], found["benign"]) == (malignant, len(numbers) - malignant)
    assert found["malformed_rows_dropped"] == MALFORMED[site]
    assert (found["missing_values"] > 0) == (site == "east")
    for place, name in ((0, "radius_mean"), (1, "texture_mean"), (3, "area_mean")):
        values = source.data[numbers, place]
        assert found["features"][name]["mean"] == pytest.approx(values.mean(), abs=1e-6)
        assert found["features"][name]["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)


@pytest.mark.parametrize("site", SITES)
def test_report_speaks_of_every_case(campaign: Campaign, site: str) -> None:
    report = yaml.safe_load((campaign.sites[site].folder / "report.yaml").read_text())
    assert set(report) == {"status", "status_name", "comment"}
    assert len(report["status"]) == SITE_SIZES[site]
    dropped = [case for case, status in report["status"].items() if status < 0]
    assert len(dropped) == MALFORMED[site]
    assert all(report["comment"][case] for case in dropped)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("model", TRAINERS)
def test_metrics_equal_scikit_learn(campaign: Campaign, site: str, model: str) -> None:
    if (site, model) == ("east", "random_forest"):
        return
    outcome = campaign.outcomes[site, model, "infer"]
    assert outcome.exit_code == 0, outcome.log
    outcome = campaign.outcomes[site, model, "evaluate"]
    assert outcome.exit_code == 0, outcome.log
    found = yaml.safe_load(campaign.sites[site].metrics(model).read_text())
    jsonschema.validate(found, _schema("metrics"))
    folder = campaign.sites[site].folder / f"{model}.predictions"
    scores = {
        row["case_id"]: float(row["probability"]) for row in _table(folder / "predictions.csv")
    }
    labels = _table(campaign.sites[site].prepared()["labels_path"] / "labels.csv")
    truth = [int(row["malignant"]) for row in labels]
    score = [scores[row["case_id"]] for row in labels]
    called = [value >= 0.5 for value in score]
    expected = {
        "accuracy": accuracy_score(truth, called),
        "auc": roc_auc_score(truth, score),
        "sensitivity": recall_score(truth, called),
        "specificity": recall_score(truth, called, pos_label=0),
    }
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, abs=1e-6)
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    assert found["auc"]["value"] > 0.95


def test_random_forest_refuses_missing_values_and_no_other_model_does(campaign: Campaign) -> None:
    failed = {key: outcome for key, outcome in campaign.outcomes.items() if outcome.exit_code}
    assert set(failed) == {("east", "random_forest", "infer")}
    outcome = failed["east", "random_forest", "infer"]
    assert outcome.exit_code == 2
    assert "accepts complete cases only" in outcome.log
