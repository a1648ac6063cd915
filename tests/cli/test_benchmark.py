"""Benchmarks: reading them, running them at a site, ordering and watching them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.commands import benchmark_watch
from cli.commands.benchmark_rows import count
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.cli.conftest import World
from tests.cli.fake_registry import ADA, NORTH, container_digest, origin

RUN = ("benchmark", "run", "1", "--dataset", "1")


def test_ls_in_three_shapes(elsewhere: World) -> None:
    assert elsewhere.done("benchmark", "ls").splitlines()[2].split()[:2] == ["1", "tissue"]
    assert elsewhere.done("benchmark", "ls", "-o", "csv").splitlines()[1].startswith("1,tissue,1,1")
    (row,) = elsewhere.json("benchmark", "ls")
    assert row["origin"]["ledger_index"] == 7
    assert row["policy"]["datasets"]["mode"] == "never"
    assert row["policy"]["models"] is None


def test_show_names_the_models(elsewhere: World) -> None:
    text = elsewhere.done("benchmark", "show", "1")
    assert "name: tissue" in text
    assert "name: neighbours" in text


def test_show_of_what_is_not_there(elsewhere: World) -> None:
    result = elsewhere.run("benchmark", "show", "2", "-o", "json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["error"]["code"] == "BENCHMARK_NOT_FOUND"


def test_run_prints_the_table_and_the_counts(at_site: World) -> None:
    result = at_site.run(*RUN)
    assert result.exit_code == 10
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["model", "result", "partial", "from", "cache", "error"]
    assert lines[2].split() == ["1", "forest", "b1m1d1", "no", "yes", "-"]
    assert lines[4].split("  ")[-1] == "infer ended with 3 [STEP_FAILED]"
    assert lines[6:] == [
        "total: 3",
        "skipped (from cache): 1, of which partial: 0",
        "failed: 1",
        "ran: 1, of which partial: 1",
    ]
    assert "model 2 tree: infer: running" in result.stderr
    assert "Next: housecall result show b1m1d1" in result.stderr


def test_run_without_failures_ends_with_zero(at_site: World) -> None:
    at_site.site.rows.pop()
    assert at_site.run(*RUN).exit_code == 0


def test_run_in_json_has_rows_and_counts(at_site: World) -> None:
    result = at_site.run(*RUN, "-o", "json")
    answer = json.loads(result.stdout)
    assert [row["result"] for row in answer["rows"]] == ["b1m1d1", "b1m2d1", ""]
    assert answer["counts"] == {
        "total": 3,
        "skipped": 1,
        "skipped_partial": 0,
        "failed": 1,
        "ran": 1,
        "ran_partial": 1,
    }


def test_run_selects(at_site: World, tmp_path: Path) -> None:
    listed = tmp_path / "models.txt"
    listed.write_text("2, 3 # the new ones\n4\n")
    at_site.run(*RUN, "--model", "1", "--models-from-file", str(listed), "--rerun")
    selection = at_site.site.last(site_pb2.RunBenchmarkRequest).selection
    assert list(selection.model_ids) == [1, 2, 3, 4]
    assert (selection.dataset_id, selection.rerun) == ("north/1", True)
    listed.write_text("forest")
    result = at_site.run(*RUN, "--models-from-file", str(listed))
    assert result.exit_code == 2
    assert "expected model numbers, got 'forest'" in result.stderr


@pytest.mark.parametrize("text", ["", "\n# none of them\n"])
def test_a_file_without_numbers_is_not_every_model(
    at_site: World, tmp_path: Path, text: str
) -> None:
    listed = tmp_path / "models.txt"
    listed.write_text(text)
    result = at_site.run(*RUN, "--models-from-file", str(listed))
    assert result.exit_code == 2
    assert f"{listed}: expected at least one model number, got none" in result.stderr
    assert "[USAGE]" in result.stderr
    assert not at_site.site.asked


def test_the_first_failure_is_to_be_looked_at(at_site: World) -> None:
    at_site.site.rows[2].error = ""
    at_site.site.rows.reverse()
    result = at_site.run(*RUN)
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["1", "2", "3"], "by the models' ids"
    assert lines[4].split("  ")[-1] == "[STEP_FAILED]"
    assert "Next: housecall execution show 5" in result.stderr
    at_site.site.rows.pop(0)
    assert "execution show" not in at_site.run(*RUN).stderr


def test_dry_run_says_what_it_needs(at_site: World) -> None:
    text = at_site.done(*RUN, "--dry-run")
    assert "pull 3.0 GiB" in text
    assert "disk free: 1.0 TiB" in text
    assert not at_site.site.asked


def test_counts_of_partial_ones_from_cache() -> None:
    row = {"result": "b1m1d1", "from_cache": True, "partial": True}
    counts = count([row, {**row, "partial": False}, {**row, "result": ""}])
    assert (counts["skipped"], counts["skipped_partial"], counts["failed"]) == (2, 1, 1)


def test_run_wants_one_of_dataset_and_all_sites(at_site: World) -> None:
    assert at_site.run("benchmark", "run", "1").exit_code == 2
    assert at_site.run(*RUN, "--all-sites").exit_code == 2


def test_all_sites_orders_what_is_missing_pinned(elsewhere: World) -> None:
    running = registry_pb2.Execution(
        id=8,
        dataset_id="south/1",
        model=pb.Pin(id=2, digest=container_digest(3)),
        state=pb.EXECUTION_STATE_RUNNING,
    )
    elsewhere.registry.executions.append(running)
    result = elsewhere.run("benchmark", "run", "1", "--all-sites", "--yes")
    assert result.exit_code == 0, result.output
    orders = [elsewhere.ledger.stated(back) for back in (2, 1)]
    assert all(isinstance(order, pb.ExecutionRequested) for order in orders)
    pairs = [[(line.dataset_id, line.model.id) for line in order.executions] for order in orders]
    assert pairs == [[("north/1", 2)], [("south/1", 1)]], "one statement a dataset"
    assert {line.model.digest for order in orders for line in order.executions} == {
        container_digest(3)
    }
    assert "south/1: ledger entry" in result.output
    assert "ordered 2 executions" in result.output
    assert "Next: housecall benchmark watch 1" in result.stderr


def test_all_sites_reruns_and_selects(elsewhere: World) -> None:
    elsewhere.done("benchmark", "run", "1", "--all-sites", "--yes", "--rerun", "--model", "1")
    orders = [elsewhere.ledger.stated(back).executions for back in (2, 1)]
    pairs = [[(e.dataset_id, e.model.id) for e in executions] for executions in orders]
    assert pairs == [[("north/1", 1)], [("south/1", 1)]]


def test_all_sites_asks_and_appends_nothing_unasked(elsewhere: World) -> None:
    result = elsewhere.run("benchmark", "run", "1", "--all-sites")
    assert result.exit_code == 6
    assert "Order these 3 executions?" in result.stderr
    assert elsewhere.run("benchmark", "run", "1", "--all-sites", "--dry-run").exit_code == 0
    stated = [elsewhere.ledger.stated(n + 1) for n in range(len(elsewhere.ledger.envelopes))]
    assert not [each for each in stated if isinstance(each, pb.ExecutionRequested)]


def test_all_sites_refuses_a_model_that_is_not_approved(elsewhere: World) -> None:
    result = elsewhere.run("benchmark", "run", "1", "--all-sites", "--model", "9")
    assert result.exit_code == 6
    assert "model 9 is not approved here: expected one of 1, 2" in result.stderr


def test_watch_prints_a_table_a_change(elsewhere: World) -> None:
    boards = elsewhere.done("benchmark", "watch", "1").strip().split("\n\n")
    assert len(boards) == 2
    cells = re.split("  +", boards[0].splitlines()[2])
    assert cells == ["north/1", "connected", "running: infer", "-"]
    assert "submitted" in boards[1]
    assert "running" not in elsewhere.done("benchmark", "watch", "1").split("\n\n")[1]


def test_watch_has_the_models_in_order() -> None:
    snapshot = registry_pb2.WatchBenchmarkResponse(dataset_ids=["north/1"], model_ids=[10, 2])
    snapshot.cells.add(dataset_id="north/1", model_id=10, submitted=True)
    titles, _, row = benchmark_watch.board(snapshot, {2: "tree", 10: "net"}).splitlines()
    assert re.split("  +", titles)[2:] == ["2 tree", "10 net"]
    assert re.split("  +", row)[2:] == ["-", "submitted"]


def test_watch_once_and_in_json(elsewhere: World) -> None:
    assert elsewhere.json("benchmark", "watch", "1", "--once")["cells"][0]["state"] == "running"
    lines = elsewhere.done("benchmark", "watch", "1", "-o", "json").splitlines()
    assert [json.loads(line)["cells"][0]["submitted"] for line in lines] == [False, True]


def test_create_pins_by_digest(elsewhere: World, tmp_path: Path) -> None:
    schema = tmp_path / "metrics.json"
    schema.write_text('{"type": "object"}\n')
    words = (
        *("benchmark", "create", "--name", "skin", "--preparation", "1", "--reference-model"),
        *("1", "--evaluator", "2", "--metrics-schema", str(schema), "--committee", "grace"),
        *("--votes", "2", "--auto-approve-datasets", "north,south", "--wall-limit", "60"),
    )
    assert "created benchmark 4 (skin): ledger entry" in elsewhere.done(*words)
    stated = elsewhere.ledger.stated()
    assert isinstance(stated, pb.BenchmarkRegistered)
    assert stated.preparation == pb.Pin(id=1, digest=container_digest(1))
    assert stated.reference_model == pb.Pin(id=1, digest=container_digest(3))
    assert list(stated.committee) == [ADA, "spiffe://demo/person/grace"]
    assert stated.metrics_schema == '{"type": "object"}\n'
    assert list(stated.policy.datasets.allowlist) == [NORTH, "spiffe://demo/site/south"]
    assert stated.policy.models.mode == pb.APPROVAL_MODE_NEVER
    assert (stated.votes_needed, stated.limits.wall_seconds) == (2, 60)


@pytest.mark.parametrize("text", ["{", '{"type": "nonsense"}'])
def test_create_refuses_a_schema_that_is_none(elsewhere: World, tmp_path: Path, text: str) -> None:
    schema = tmp_path / "metrics.json"
    schema.write_text(text)
    words = [
        "benchmark",
        "create",
        "--name",
        "x",
        "--preparation",
        "1",
        "--reference-model",
        "1",
        "--evaluator",
        "2",
    ]
    result = elsewhere.run(*words, "--metrics-schema", str(schema))
    assert result.exit_code == 2
    assert "SCHEMA_INVALID" in result.stderr


def test_policy_changes_only_what_is_named(elsewhere: World) -> None:
    elsewhere.registry.benchmark.origin.CopyFrom(origin(ADA, "d"))
    elsewhere.done("benchmark", "policy", "1", "--reference-dataset", "reference/1")
    stated = elsewhere.ledger.stated()
    assert isinstance(stated, pb.BenchmarkPolicyChanged)
    assert stated.policy.reference_dataset_id == "reference/1"
    assert stated.policy.datasets.mode == pb.APPROVAL_MODE_NEVER
    assert elsewhere.run("benchmark", "policy", "1").exit_code == 2


CREATE = (
    *("benchmark", "create", "--name", "skin", "--preparation", "1"),
    *("--reference-model", "1", "--evaluator", "2"),
)
ORDER = ("benchmark", "run", "1", "--all-sites", "--yes")


def untrue(world: World, *words: str) -> str:
    """How it refuses what was never signed; nothing may be stated then."""
    result = world.run(*words)
    assert result.exit_code == 5, result.output
    assert "[REGISTRY_UNTRUE]" in result.stderr
    kinds = (pb.BenchmarkRegistered, pb.ExecutionRequested)
    assert not isinstance(world.ledger.stated(), kinds)
    return result.stderr


@pytest.mark.parametrize("words", [CREATE, ORDER])
def test_a_model_that_was_never_signed_is_not_pinned(
    elsewhere: World, words: tuple[str, ...]
) -> None:
    for model in elsewhere.registry.models:
        model.statement.container.digest = container_digest(1)
    text = untrue(elsewhere, *words)
    assert "expected the ModelRegistered that was signed, got other content" in text


@pytest.mark.parametrize("words", [CREATE, ORDER])
def test_another_owner_is_not_believed(elsewhere: World, words: tuple[str, ...]) -> None:
    for model in elsewhere.registry.models:
        model.origin.owner = NORTH
    assert f"expected owner {ADA}, got {NORTH}" in untrue(elsewhere, *words)


def test_a_container_is_its_parts(elsewhere: World) -> None:
    container = elsewhere.registry.containers[0]
    container.statement.container_digest = container_digest(2)
    container.origin.CopyFrom(elsewhere.registry.origin_of(container.statement))
    text = untrue(elsewhere, *CREATE)
    expected = f"expected digest {container_digest(1)} of its parts, got {container_digest(2)}"
    assert f"container 1: {expected}" in text


def test_another_number_or_envelope_is_refused(elsewhere: World) -> None:
    elsewhere.registry.containers[0].origin.envelope_digest = container_digest(9)
    assert f"expected envelope {container_digest(9)}" in untrue(elsewhere, *CREATE)
    elsewhere.registry.containers[0].id = 9
    assert "container 1: expected number 1, got 9" in untrue(elsewhere, *CREATE)
