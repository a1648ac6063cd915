"""What came of the story: every submitted result, exported and verified by a separate process that
has only the file and the ledger's public key; written to `.demo/summary.json`."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from examples.demo.benchmark import MODELS
from examples.demo.processes import DemoError
from examples.demo.story import Record
from examples.demo.world import COMMITTEE, HOSPITALS, OPERATOR, PROGRAMS, REFERENCE, World


def write(world: World, record: Record, folder: Path) -> dict[str, Any]:
    """Export, verify, write the summary; raises DemoError where it is not as the story says."""
    results_folder = folder / "results"
    results_folder.mkdir(exist_ok=True)
    for old in results_folder.glob("*.json"):
        old.unlink()
    checkpoint = world.json(COMMITTEE, "ledger", "checkpoint")
    key = checkpoint["verifier_key"]
    (results_folder / "ledger.vkey").write_text(key + "\n")
    listed = world.json(COMMITTEE, "result", "ls", "--benchmark", "1", "--purpose", "benchmark")
    results = [_result(world, row, results_folder, key) for row in listed]
    world.run(OPERATOR, "ledger", "verify")
    summary = {
        "sites": len(HOSPITALS) + len([REFERENCE]),
        "models": len(MODELS),
        "results": results,
        "errors": record.errors,
        "seconds": record.seconds,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    _check(summary)
    return summary


def _result(world: World, row: dict[str, Any], folder: Path, key: str) -> dict[str, Any]:
    name = row["name"]
    file = folder / f"{name.replace('/', '-')}.json"
    world.run(COMMITTEE, "result", "export", name, "--file", str(file))
    said = row["statement"]
    return {
        "result": name,
        "benchmark_id": said["benchmark_id"],
        "dataset_id": said["dataset_id"],
        "model_id": said["model"]["id"],
        "site": name.partition("/")[0],
        "metrics": said["metrics"],
        "ledger_index": int(row["origin"]["ledger_index"]),
        "verified": _verify(file, key),
    }


def _verify(file: Path, key: str) -> bool:
    """By a process without home, socket or network address: the file and the key alone."""
    with tempfile.TemporaryDirectory() as nowhere:
        done = subprocess.run(
            [str(PROGRAMS / "housecall"), "result", "verify", str(file), "--ledger-key", key],
            env={"PATH": os.environ["PATH"], "HOME": nowhere, "HOUSECALL_HOME": nowhere},
            cwd=nowhere,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    return done.returncode == 0


def _check(summary: dict[str, Any]) -> None:
    """The demo fails when its story did not come out."""
    problems = []
    if len(summary["results"]) < 10:
        problems.append(f"expected at least 10 results, got {len(summary['results'])}")
    problems += [f"{r['result']} does not verify" for r in summary["results"] if not r["verified"]]
    failures = [(error["site"], error["model_id"]) for error in summary["errors"]]
    if failures != [("east", 2)]:
        problems.append(f"expected model 2 to fail at east alone, got {failures}")
    if problems:
        raise DemoError("; ".join(problems))
