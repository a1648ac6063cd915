"""A data owner's commands: what is shown, asked, sent, and how each way ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from housecall.errors import Kind, Refusal
from housecall.v1 import fleet_pb2, registry_pb2, site_pb2
from tests.cli.conftest import World

REGISTER = [
    *("dataset", "register", "--name", "tissue", "--description", "d", "--location", "l"),
    *("--data-path", "data", "--labels-path", "/labels", "--benchmark", "1"),
]


def test_register_shows_exactly_what_leaves_and_releases_its_digest(at_site: World) -> None:
    result = at_site.run(*REGISTER, "--yes")
    assert result.exit_code == 0, result.output
    assert "This, and nothing else, would leave north:" in result.stdout
    assert at_site.site.drafted.decode() in result.stdout
    release = at_site.site.last(site_pb2.ReleaseRequest)
    assert f"digest of what would leave: {release.digest}" in result.stdout
    assert "DatasetRegistered north/1: ledger entry 12 in a tree of 13" in result.stdout
    assert "Next: housecall dataset prepare 1" in result.stderr
    assert "raw data: 4.0 KiB of 4.0 KiB, 100 %" in result.stderr


def test_register_sends_absolute_paths_to_the_agent_only(at_site: World) -> None:
    at_site.done(*REGISTER, "--yes")
    draft = at_site.site.last(site_pb2.DraftDatasetRequest)
    assert (draft.data_path, draft.labels_path) == (str(Path.cwd() / "data"), "/labels")
    assert draft.benchmark_id == 1


def test_register_in_json_keeps_standard_output_for_the_answer(at_site: World) -> None:
    result = at_site.run(*REGISTER, "--yes", "-o", "json")
    assert json.loads(result.stdout)["sent"] == [
        {
            "kind": "DatasetRegistered",
            "id": "north/1",
            "envelope_digest": "sha256:" + "9" * 64,
            "ledger_index": 12,
            "tree_size": 13,
        }
    ]
    assert "This, and nothing else" in result.stderr
    assert "Next:" not in result.stderr


def test_register_without_the_coordinator_is_kept_in_the_outbox(at_site: World) -> None:
    at_site.site.online = False
    assert "signed and kept in the outbox" in at_site.done(*REGISTER, "--yes")


@pytest.mark.parametrize("typed", ["\n", "n\n", "yep\n", ""])
def test_anything_but_yes_sends_nothing(
    at_site: World, terminal: Callable[[], None], typed: str
) -> None:
    result = at_site.run(*REGISTER, typed=typed)
    assert result.exit_code == 11
    assert "Register this dataset? [y/N]" in result.stderr
    assert "declined: nothing has left the site [DECLINED]" in result.stderr
    assert not any(isinstance(r, site_pb2.ReleaseRequest) for r in at_site.site.asked)


@pytest.mark.parametrize("typed", ["y\n", "Yes\n"])
def test_yes_sends(at_site: World, terminal: Callable[[], None], typed: str) -> None:
    assert at_site.run(*REGISTER, typed=typed).exit_code == 0


def test_without_terminal_and_yes_it_refuses(at_site: World) -> None:
    result = at_site.run(*REGISTER, "-o", "json")
    assert result.exit_code == 6
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["code"]) == ("not ready", "CONFIRMATION_NEEDED")
    assert "give --yes" in error["message"]


def test_register_wants_one_of_benchmark_and_container(at_site: World) -> None:
    result = at_site.run(*REGISTER, "--container", "1")
    assert result.exit_code == 2
    assert "exactly one of --benchmark and --container" in result.stderr
    assert not at_site.site.asked


def test_the_agents_refusal_arrives_whole(at_site: World) -> None:
    text = "data path /x: expected a folder, got nothing; correct --data-path"
    at_site.site.problem = Refusal(Kind.INVALID, "PATH_MISSING", text)
    result = at_site.run(*REGISTER, "--yes", "-o", "json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "error": {"kind": "invalid", "code": "PATH_MISSING", "message": text}
    }
    assert f"error: {text} [PATH_MISSING]" in result.stderr


def test_ls_mine_is_the_sites_own(at_site: World) -> None:
    lines = at_site.done("dataset", "ls", "--mine").splitlines()
    assert lines[0].split() == [
        "id", "name", "state", "accepted", "preparation", "raw", "prepared", "problem",
    ]  # fmt: skip
    assert lines[2].split() == ["north/1", "tissue", "prepared", "yes", "-", "a" * 12, "-", "-"]


def test_ls_gives_all_registered_ones_page_by_page(at_site: World) -> None:
    rows = at_site.json("dataset", "ls")
    assert [row["id"] for row in rows] == ["north/1", "south/1"]
    assert rows[0]["state"] == "operational"
    csv = at_site.done("dataset", "ls", "-o", "csv").splitlines()
    assert csv[0] == "id,name,location,state,site,preparation,prepared,preparing"
    assert len(csv) == 3


def test_show_takes_the_sites_number_or_a_whole_id(at_site: World) -> None:
    local = at_site.json("dataset", "show", "1")
    assert local["data_path"] == "/data/north"
    assert local["cases"] == {"done": 40, "todo": 2}
    assert "statement" in at_site.json("dataset", "show", "north/1")
    assert "todo: 2" in at_site.done("dataset", "show", "1")


def test_a_preparation_is_followed_where_its_site_tells_it(at_site: World) -> None:
    """Of a dataset that is not theirs to see, people get nothing else."""
    preparing = fleet_pb2.Preparing(
        dataset_id="north/1",
        state=fleet_pb2.PREPARATION_STATE_PREPARING,
        step="prepare",
        shares={"todo": 25, "done": 75},
    )
    at_site.registry.datasets[0] = registry_pb2.Dataset(
        id="north/1", state=registry_pb2.DATASET_STATE_REGISTERED, preparing=preparing
    )
    at_site.site.dataset.reported.CopyFrom(preparing)
    for shown in ("1", "north/1"):
        lines = [line.strip() for line in at_site.done("dataset", "show", shown).splitlines()]
        assert {"step: prepare", "done: 75", "todo: 25"} <= set(lines)
    assert at_site.json("dataset", "show", "north/1")["preparing"]["shares"]["done"] == 75
    row = at_site.done("dataset", "ls").splitlines()[2].split()
    assert row == ["north/1", "-", "-", "registered", "-", "-", "-", "preparing"]


def test_show_of_what_is_not_there(at_site: World) -> None:
    result = at_site.run("dataset", "show", "9")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: dataset north/9: there is none here")


def test_prepare_shows_steps_and_what_is_next(at_site: World) -> None:
    result = at_site.run("dataset", "prepare", "1")
    assert result.exit_code == 0, result.output
    assert "prepare: succeeded in 3.0 s" in result.stderr
    assert "prepared 42 cases" in result.stdout
    assert "Next: housecall dataset set-operational 1" in result.stderr
    assert at_site.site.last(site_pb2.PrepareDatasetRequest).dataset_id == "north/1"


@pytest.mark.parametrize(
    ("state", "code", "exit_code"),
    [
        (site_pb2.LOCAL_DATASET_STATE_OUTSTANDING, "PREPARATION_OUTSTANDING", 6),
        (site_pb2.LOCAL_DATASET_STATE_BROKEN, "PREPARATION_BROKEN", 2),
    ],
)
def test_prepare_tells_outstanding_from_broken(
    at_site: World, state: site_pb2.LocalDatasetState.ValueType, code: str, exit_code: int
) -> None:
    at_site.site.state = state
    result = at_site.run("dataset", "prepare", "1")
    assert result.exit_code == exit_code
    assert code in result.stderr


def test_prepare_stops(at_site: World) -> None:
    assert at_site.json("dataset", "prepare", "1", "--stop")["state"] == "stopped"
    assert at_site.site.last(site_pb2.StopPreparationRequest).dataset_id == "north/1"


def test_check_full(at_site: World) -> None:
    assert "raw data: unchanged" in at_site.done("dataset", "check", "1", "--full")
    assert at_site.site.last(site_pb2.CheckDatasetRequest).full


def test_set_operational_and_associate(at_site: World) -> None:
    assert "DatasetRegistered" in at_site.done("dataset", "set-operational", "1", "-y")
    result = at_site.run("dataset", "associate", "1", "--benchmark", "1", "-y")
    assert result.exit_code == 0
    assert "infer: succeeded in 12.0 s" in result.stderr
    request = at_site.site.last(site_pb2.DraftAssociationRequest)
    assert (request.dataset_id, request.benchmark_id) == ("north/1", 1)


def test_associate_shows_the_metrics_of_what_leaves(at_site: World) -> None:
    at_site.site.metrics = {"auc": 0.5}
    text = at_site.done("dataset", "associate", "1", "--benchmark", "1", "-y")
    assert "\nmetrics:\n  auc: 0.5\n" in text


def test_metadata_is_written_by_the_preparation(at_site: World) -> None:
    result = at_site.run(*REGISTER, "--metadata-path", "/m", "--yes")
    assert result.exit_code == 2
    assert "the preparation writes the metadata itself" in result.stderr
    assert "[USAGE]" in result.stderr
    assert not at_site.site.asked
    at_site.done(*REGISTER, "--metadata-path", "/m", "--already-prepared", "--yes")
    assert at_site.site.last(site_pb2.DraftDatasetRequest).metadata_path == "/m"


def test_csv_has_digests_whole(at_site: World) -> None:
    row = at_site.done("dataset", "ls", "--mine", "-o", "csv").splitlines()[1]
    assert row == f"north/1,tissue,prepared,true,,sha256:{'a' * 64},,"


def test_log_lines_cannot_steer_the_terminal(at_site: World) -> None:
    result = at_site.run("dataset", "associate", "1", "--benchmark", "1", "-y")
    assert "infer | batch 1\\x1b[2J of 2" in result.stderr
    assert "\x1b" not in result.output


def test_no_agent_here(world: World) -> None:
    result = world.run("dataset", "ls", "--mine")
    assert result.exit_code == 6
    assert f"no agent's socket at {world.socket}" in result.stderr
    assert "[NO_AGENT]" in result.stderr


def test_an_agent_that_is_gone(world: World) -> None:
    os.mkfifo(world.socket)
    result = world.run("site", "status")
    assert result.exit_code == 8
    assert "UNREACHABLE" in result.stderr
