"""`make demo`'s program as a whole, and what it leaves behind for others to check."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.demo.world import PROGRAMS
from examples.images.catalog import EXAMPLES


@pytest.fixture(scope="module")
def demo(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the demo ran to its end."""
    folder = tmp_path_factory.mktemp("run")
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "run"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


def summary(demo: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((demo / ".demo/summary.json").read_text())
    return made


def test_the_summary_says_what_the_story_promised(demo: Path) -> None:
    made = summary(demo)
    assert (made["sites"], made["models"]) == (4, 4)
    assert len({row["result"] for row in made["results"]}) == len(made["results"]) >= 10
    assert all(row["verified"] for row in made["results"])
    assert made["errors"] == [{"site": "east", "model_id": 2, "reason": "STEP_FAILED"}]
    late = {row["site"] for row in made["results"] if row["model_id"] == 3}
    assert late == {"north", "south", "reference"}, "east refused the late model"
    keys = {"result", "benchmark_id", "dataset_id", "model_id", "site", "metrics"}
    assert all(keys <= row.keys() for row in made["results"])
    assert all(0.5 < row["metrics"]["auc"]["value"] <= 1 for row in made["results"])
    indices = [row["ledger_index"] for row in made["results"]]
    assert len(set(indices)) == len(indices)


def test_nothing_of_the_sites_data_is_in_what_left(demo: Path) -> None:
    """No path, no case and no prediction is in any exported statement."""
    cases = (demo / ".demo/world/sites/north/raw/labels").iterdir()
    names = [line.split(",")[0] for file in cases for line in file.read_text().splitlines()[1:]]
    for file in (demo / ".demo/results").glob("*.json"):
        bundle = json.loads(file.read_text())
        envelope = json.loads(base64.b64decode(bundle["statement"]["envelope"]))
        text = base64.b64decode(envelope["payload"]).decode()
        assert str(demo) not in text
        assert not [name for name in names if f'"{name}"' in text]


def verify(file: Path, key: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAMS / "housecall"), "result", "verify", str(file), "--ledger-key", key],
        env={"PATH": os.environ["PATH"], "HOUSECALL_HOME": str(file.parent / "none")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_result_is_verified_offline_and_a_changed_one_is_not(demo: Path, tmp_path: Path) -> None:
    folder = demo / ".demo/results"
    key = (folder / "ledger.vkey").read_text().strip()
    file = folder / "north-b1m4d1.json"
    good = verify(file, key)
    assert good.returncode == 0, good.stderr
    assert "spiffe://demo/site/north" in good.stdout
    bundle = json.loads(file.read_text())
    envelope = json.loads(base64.b64decode(bundle["statement"]["envelope"]))
    payload = base64.b64decode(envelope["payload"]).replace(b'"cases": 89', b'"cases": 90')
    envelope["payload"] = base64.b64encode(payload).decode()
    changed = base64.b64encode(json.dumps(envelope).encode()).decode()
    bundle["statement"]["envelope"] = changed
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps(bundle))
    bad = verify(forged, key)
    assert bad.returncode == 2
    assert "NOT_IN_LEDGER" in bad.stderr
    name, _, rest = key.partition("+")
    other = verify(file, f"{name}x+{rest}")
    assert other.returncode != 0


def test_no_program_of_the_demo_is_left(demo: Path) -> None:
    assert not list((demo / ".demo/world/log").glob("*.pid"))
    marks = [str(demo).encode()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            assert not any(mark in command for mark in marks), command


def test_the_screens_are_for_people(demo: Path) -> None:
    text = (demo / "stdout.txt").read_text()
    assert "refused: CONSENT_REFUSED" in text
    assert "failed: 1" in text
    assert "results submitted and verified" in text
    assert "Traceback" not in text
