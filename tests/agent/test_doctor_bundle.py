"""The bundle for those who help: what is in it, and above all what is not."""

from __future__ import annotations

import json
import stat
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from agent.__main__ import main
from agent.journal import Journal
from agent.records import Execution, Outgoing, State
from tests.agent.patient import PASSWORD, Patient, patient

CASE = "patient-4711"


def sick(folder: Path) -> Patient:
    """A site whose journal, settings and folders have what must not leave."""
    made = patient(folder / CASE)
    made.settle(
        proxy=f"http://dora:{PASSWORD}@127.0.0.1:1", allowed_paths=[str(folder / CASE / "scans")]
    )
    with closing(Journal(made.state / "journal.sqlite")) as journal:
        journal.add_execution(
            Execution(
                benchmark_id=1,
                model_id=4,
                model_digest="sha256:" + "a" * 64,
                dataset_id=f"north/{CASE}",
                purpose="BENCHMARK",
                state=State.FAILED,
                step="infer",
                reason="STEP_FAILED",
                problem=f"{CASE}.dcm could not be read",
            )
        )
        journal.add_execution(
            Execution(
                benchmark_id=1,
                model_id=5,
                model_digest="sha256:" + "b" * 64,
                dataset_id=f"north/{CASE}",
                purpose="BENCHMARK",
                state=State.QUEUED,
            )
        )
        journal.add_outgoing(
            Outgoing(f"sha256:{CASE}", CASE.encode(), "ResultSubmitted", CASE, CASE)
        )
        refused = ("invalid", "METRICS_INVALID", f"{CASE}: expected less")
        journal.settle_refused(f"sha256:{CASE}", refused)
    return made


def read(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as opened:
        return {
            Path(member.name).name: json.load(file)
            for member in opened
            if (file := opened.extractfile(member))
        }


def test_what_is_in_the_bundle(tmp_path: Path) -> None:
    made, target = sick(tmp_path), tmp_path / "bundle.tar.gz"
    shown = CliRunner().invoke(
        main, ["doctor", "--config", str(made.config), "--bundle", str(target)]
    )
    assert "doctor.json: what the checks found" in shown.stderr
    assert "stays here" in shown.stderr
    found = read(target)
    assert list(found) == ["doctor.json", "versions.json", "settings.json", "journal.json"]
    assert found["doctor.json"]["exit_code"] == shown.exit_code
    assert found["versions.json"]["grpcio"]
    assert found["settings.json"]["slots"] == 2
    assert found["settings.json"]["state_dir"] == "set"
    assert found["settings.json"]["allowed_paths"] == "1 set"
    assert found["settings.json"]["policy_file"] == "not set"
    counted = found["journal.json"]
    assert ["FAILED", "STEP_FAILED", "infer", 1] in counted["executions"]
    assert counted["outbox"] == [["ResultSubmitted", "refused", "METRICS_INVALID", 1]]
    assert [(each["id"], each["state"]) for each in counted["open"]] == [(2, "QUEUED")]


def test_nothing_of_the_sites_leaves_with_it(tmp_path: Path) -> None:
    made, target = sick(tmp_path), tmp_path / "bundle.tar.gz"
    CliRunner().invoke(main, ["doctor", "--config", str(made.config), "--bundle", str(target)])
    text = json.dumps(read(target))
    for secret in (PASSWORD, "dora", CASE, str(tmp_path), "scans", "sha256:"):
        assert secret not in text, secret
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_bundle_of_a_site_that_has_nothing(tmp_path: Path) -> None:
    made, target = Patient(tmp_path), tmp_path / "bundle.tar.gz"
    made.config.write_text("slots = 0")
    CliRunner().invoke(main, ["doctor", "--config", str(made.config), "--bundle", str(target)])
    found = read(target)
    assert found["settings.json"] == {"unreadable": "SETTINGS_INVALID"}
    assert found["journal.json"] == {}
