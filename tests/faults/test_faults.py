"""The harness itself: a short run finds nothing wrong, and sees what is broken on purpose."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.plan import KINDS, Options, schedule
from tests.faults.run import default_folder
from tests.faults.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[2]
VERDICT = re.compile(r"^faults (\d+), lost (\d+), duplicated (\d+), stuck (\d+)", re.MULTILINE)
WORDS = ("lost", "duplicated", "stuck")
OFTEN = ["--seconds", "14", "--faults", "8"]
SPARSE = ["--seconds", "30", "--faults", "6"]
RARE = ["--seconds", "24", "--faults", "2"]
"""Where faults come too often, too little work is under way when they do."""
FINDS = {
    "settled-when-sent": ["link-half-open,link-one-way", *OFTEN],
    "receipt-before-commit": ["coordinator-boundary", *SPARSE, "--sides", "before"],
    "acknowledged-first": ["agent-boundary", *OFTEN, "--sides", "before orders.receive>add_order"],
    "started-blindly": ["agent-kill", *RARE, "--ticks", "80", "--sites", "1"],
    "appended-twice": ["agent-stop", *RARE],
}
"""For each variant the kinds of faults that bring it out, and their world: a container that is
started twice has to outlive a restart of its agent. What is appended twice needs no fault."""
SMALL = ["--replicas", "0", "--sites", "2"]
"""The world in which a variant is tried."""

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="an engine, small disks and clocks of its own need root"
)


def harness(*words: str) -> tuple[int, dict[str, int], str]:
    """Exit code, the numbers of the verdict, and all that was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    said = VERDICT.search(done.stdout)
    assert said is not None, done.stdout[-3000:] + done.stderr[-3000:]
    numbers = [int(number) for number in said.groups()]
    return done.returncode, dict(zip(("faults", *WORDS), numbers, strict=True)), done.stdout


@needs_root
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_doubled_or_stuck() -> None:
    words = ["--seed", "1", "--seconds", "45", "--faults", "36", "--sites", "2"]
    code, found, text = harness(*words)
    assert code == 0, text[-4000:]
    assert found["faults"] >= 18
    assert [found[word] for word in WORDS] == [0, 0, 0]


@needs_root
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_in_the_world_of_the_variants_nothing_is_wrong_without_them() -> None:
    only = ",".join(kinds for kinds, *_ in FINDS.values())
    words = [*SMALL, "--seconds", "20", "--faults", "8", "--only", only]
    code, found, text = harness("--seed", "1", *words)
    assert code == 0, text[-4000:]
    assert [found[word] for word in WORDS] == [0, 0, 0]


@needs_root
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_broken_on_purpose_is_seen(variant: str) -> None:
    """For what it does, by one of a few seeds: whether a fault comes at the right moment is up to
    real programs."""
    words = [*SMALL, "--rest", "5", "--variant", variant, "--only", *FINDS[variant]]
    for seed in (1, 2, 3, 4, 5, 6):
        code, found, text = harness("--seed", str(seed), *words)
        if seen := findings(seed, variant):
            break
    assert seen, text[-4000:]
    assert found[VARIANTS[variant].expects] >= len(seen)
    assert code == 1


def findings(seed: int, variant: str) -> list[str]:
    """Those of a run that say what its variant does wrong."""
    verdict = default_folder(ROOT, seed, variant) / "verdict.json"
    broken = VARIANTS[variant]
    lines = json.loads(verdict.read_text())[broken.expects]
    return [line for line in lines if re.search(broken.says, line)]


def test_a_seed_decides_the_schedule(tmp_path: Path) -> None:
    def made(seed: int) -> list[object]:
        return list(schedule(Options(seed=seed, seconds=1200, faults=0, folder=tmp_path)))

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert len(made(1)) >= 300


def test_some_faults_outlast_every_deadline(tmp_path: Path) -> None:
    faults = schedule(Options(seed=1, seconds=12000, faults=0, folder=tmp_path))
    for name, kind in KINDS.items():
        lasts = [fault.seconds for fault in faults if fault.kind == name]
        outlasting = [seconds for seconds in lasts if kind.patience and seconds > kind.patience]
        assert bool(outlasting) == bool(kind.patience)
        assert len(outlasting) < len(lasts) / 3
        assert all(seconds <= kind.longest for seconds in lasts if seconds not in outlasting)
