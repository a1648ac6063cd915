"""Tables, JSON, and progress in words: the pure parts."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cli.bars import Bars
from cli.messages import number, plain, word, words
from cli.meter import Meter, clock_text, duration, size
from cli.output import brief, cell, clean, get, short, table, tree
from cli.progress import Lines, step_text
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb

STATES = registry_pb2.AssociationState.DESCRIPTOR


def test_messages_become_plain_values() -> None:
    result = registry_pb2.Result(id=1)
    result.origin.ledger_index = 2**63
    result.origin.accepted_at.FromJsonString("2026-01-02T03:04:05Z")
    result.statement.metrics.update({"auc": 0.5, "n": 3, "ci": [0.1, 1], "sub": {"a": None}})
    value = plain(result)
    assert value["origin"]["ledger_index"] == 2**63
    assert value["origin"]["accepted_at"] == "2026-01-02T03:04:05Z"
    metrics = value["statement"]["metrics"]
    assert metrics == {"auc": 0.5, "n": 3, "ci": [0.1, 1], "sub": {"a": None}}
    assert isinstance(metrics["n"], int)
    assert value["statement"]["model"] is None
    assert value["statement"]["fingerprint_verified_at"] is None


def test_maps_bytes_enums_and_absent_choices() -> None:
    dataset = site_pb2.LocalDataset(cases={"b": 1, "a": 2})
    assert list(plain(dataset)["cases"].items()) == [("a", 2), ("b", 1)]
    assert plain(site_pb2.Review(statement=b"ab"))["statement"] == "YWI="
    assert plain(pb.AssociationRequested(model_id=3))["dataset_id"] is None
    assert plain(registry_pb2.Association(state=2))["state"] == "approved"  # type: ignore[arg-type]


def test_enum_words_go_both_ways() -> None:
    assert words(STATES) == ["requested", "approved", "rejected", "withdrawn"]
    assert word(STATES, 0) is None
    assert word(STATES, 99) == "99"
    assert [number(STATES, each) for each in ("approved", "")] == [2, 0]
    assert "waiting_consent" in words(pb.ExecutionState.DESCRIPTOR)


def test_a_table_aligns_numbers_to_the_right() -> None:
    assert table([[1, "a"], [10, None]], ["id", "name"]).splitlines() == [
        "id  name",
        "--  ----",
        " 1  a",
        "10  -",
    ]


def test_cells() -> None:
    values: list[Any] = [True, False, None, "", 0.123456789, []]
    assert [cell(value) for value in values] == ["yes", "no", "-", "-", "0.123457", "-"]
    assert cell(["spiffe://demo/person/ada", "x"]) == "ada, x"
    assert cell("two\nlines") == "two lines"
    assert cell("2026-01-02T03:04:05.678901Z") == "2026-01-02T03:04:05Z"
    assert cell("2026-01-02T03:04:05Z") == "2026-01-02T03:04:05Z"
    assert short("spiffe://demo/coordinator") == "coordinator"
    assert brief("sha256:" + "a" * 64) == "a" * 12
    assert get({"a": {"b": None}}, "a.b.c") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[31mred", "\\x1b[31mred"), ("a\u202eb", "a\\u202eb"), ("Zürich\n", "Zürich\n")],
)
def test_clean_shows_what_could_steer_a_terminal(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_tree_leaves_out_what_is_empty() -> None:
    value: dict[str, Any] = {"a": 1, "b": {"c": [True, {"d": "x\ny"}]}, "e": None, "f": ""}
    assert list(tree(value)) == [
        "a: 1",
        "b:",
        "  c:",
        "    - yes",
        "    -",
        "      d:",
        "        | x",
        "        | y",
    ]


def test_sizes_and_durations() -> None:
    assert [size(n) for n in (0, 1023, 1536, 5 * 2**40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]
    assert [duration(s) for s in (0.4, 65, 36061)] == ["0.4 s", "0:01:05", "10:01:01"]


def test_a_meter_tells_amount_rate_and_time_left() -> None:
    meter = Meter(started_at=0.0)
    meter.update(0, 4 * 2**20, "bytes")
    meter.update(2**20, 4 * 2**20, "bytes")
    assert meter.text(2.0) == "1.0 MiB of 4.0 MiB, 25 %, 512.0 KiB/s, 6.0 s left"
    resumed = Meter(started_at=0.0)
    resumed.update(90, 100, "cases")
    resumed.update(95, 100, "cases")
    assert resumed.text(1.0) == "95 cases of 100 cases, 95 %, 5.0/s, 1.0 s left"


def test_lines_come_at_tenths_and_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = Lines(clock=lambda: now)
    for percent in range(101):
        now += 0.01
        amount = site_pb2.WorkEvent.Amount(label="raw data", done=percent, total=100, unit="cases")
        lines.show(site_pb2.WorkEvent(amount=amount), "x: ")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 11
    assert said[-1].startswith("x: raw data: 100 cases of 100 cases, 100 %")
    now += 6
    lines.show(site_pb2.WorkEvent(amount=amount), "x: ")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_failed_step_says_why() -> None:
    step = site_pb2.WorkEvent.StepChange(
        step="infer",
        state=pb.STEP_STATE_FAILED,
        seconds=61,
        exit_code=137,
        code="OUT_OF_MEMORY",
        text="took more than 4.0 GiB",
    )
    expected = "infer: failed in 0:01:01, exit code 137: took more than 4.0 GiB [OUT_OF_MEMORY]"
    assert step_text(step) == expected


def test_a_clock_that_has_been_running() -> None:
    assert [clock_text(s) for s in (0, 12.9, 65, 3900)] == ["0:00", "0:12", "1:05", "1:05:00"]


def test_a_running_step_has_a_clock_and_full_bars_go_away() -> None:
    now, screen = 0.0, io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    bars = Bars(lambda: now, console)

    def drawn() -> str:
        """What stands below the lines now."""
        with console.capture() as capture:
            console.print(bars.drawing())
        return capture.get()

    def step(state: pb.StepState.ValueType) -> None:
        change = site_pb2.WorkEvent.StepChange(step="infer", state=state)
        bars.show(site_pb2.WorkEvent(step=change), "model 2: ")

    def count(done: int) -> None:
        amount = site_pb2.WorkEvent.Amount(label="raw data", done=done, total=10, unit="cases")
        bars.show(site_pb2.WorkEvent(amount=amount))

    step(pb.STEP_STATE_RUNNING)
    count(5)
    now = 12.4
    assert "model 2: infer: running 0:12" in drawn()
    assert "5 cases of 10 cases, 50 %" in drawn()
    count(10)
    assert "raw data" not in drawn()
    step(pb.STEP_STATE_SUCCEEDED)
    assert "running" not in drawn()
    assert "model 2: infer: succeeded" in screen.getvalue()
