"""Preparation may be run again: it waits for a person, keeps hand edits and resumes."""

from __future__ import annotations

import csv
from pathlib import Path

import docker
import pytest
import yaml

from examples.breast_cancer.data import write_site

from .conftest import DEMO, Site
from .running import Outcome, run_task

CONFIG = DEMO / "preparation/container_config.yaml"
CASE = "N041"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    write_site("north", tmp_path)
    tmp_path.chmod(0o755)
    parameters = (DEMO / "preparation/parameters.yaml").read_text()
    changed = parameters.replace("malformed: drop", "malformed: review")
    (tmp_path / "parameters.yaml").write_text(changed)
    return Site("north", tmp_path)


def _run(client: docker.DockerClient, site: Site, task: str) -> Outcome:
    parameters = site.folder / "parameters.yaml"
    return run_task(client, CONFIG, task, site.preparation(task), parameters=parameters)


def _edit(path: Path, case: str, **cells: str) -> None:
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | cells if row["case_id"] == case else row for row in rows)


def _cases(site: Site) -> dict[str, dict[str, str]]:
    with (site.folder / "prepared/data.csv").open(newline="") as handle:
        return {row["case_id"]: row for row in csv.DictReader(handle)}


@pytest.mark.parametrize(("resolution", "count"), [("drop", 89), ("fixed", 90)])
def test_a_person_resolves_a_malformed_line(
    client: docker.DockerClient, site: Site, resolution: str, count: int
) -> None:
    assert _run(client, site, "prepare").exit_code == 0
    waiting = _run(client, site, "sanity_check")
    assert waiting.exit_code == 1
    assert f"case {CASE} (cases.csv:42, perimeter_mean: '1O4.1' is not a number)" in waiting.log
    cells = {"resolution": resolution}
    if resolution == "fixed":
        cells["perimeter_mean"] = "104.1"
    _edit(site.folder / "prepared/review.csv", CASE, **cells)
    assert _run(client, site, "prepare").exit_code == 0
    assert _run(client, site, "sanity_check").exit_code == 0
    assert len(_cases(site)) == count
    report = yaml.safe_load((site.folder / "report.yaml").read_text())
    assert report["status_name"][CASE] == ("dropped" if resolution == "drop" else "ready")


def test_a_line_marked_fixed_that_is_not_is_named(client: docker.DockerClient, site: Site) -> None:
    assert _run(client, site, "prepare").exit_code == 0
    _edit(site.folder / "prepared/review.csv", CASE, resolution="fixed")
    again = _run(client, site, "prepare")
    assert again.exit_code == 1
    assert f"case {CASE} is marked fixed, but perimeter_mean" in again.log


def test_hand_edits_and_half_a_run_are_kept(client: docker.DockerClient, site: Site) -> None:
    assert _run(client, site, "prepare").exit_code == 0
    table = site.folder / "prepared/data.csv"
    whole = table.read_bytes()
    _edit(table, "N003", radius_mean="12.5")
    half = "".join(table.read_text().splitlines(keepends=True)[:30])
    table.write_text(half[:-40])
    again = _run(client, site, "prepare")
    assert "28 cases kept from before" in again.log
    assert "61 of 61 cases converted" in again.log
    assert _cases(site)["N003"]["radius_mean"] == "12.5"
    _edit(table, "N003", radius_mean=_original(whole))
    assert table.read_bytes() == whole


def _original(table: bytes) -> str:
    rows = csv.DictReader(table.decode().splitlines())
    return next(row["radius_mean"] for row in rows if row["case_id"] == "N003")
