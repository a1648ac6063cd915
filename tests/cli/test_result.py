"""Results, executions and reviews, at both ends; result files checked with nothing but a key."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from housecall import statement
from housecall.identity import Identity
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.cli.conftest import World
from tests.cli.fake_registry import NORTH


def submitted(world: World, signer: Identity, predicate: object = None) -> None:
    """Put a result into the ledger and its bundle into the agent."""
    result = pb.ResultSubmitted(benchmark_id=1, dataset_id="north/1")
    result.metrics.update({"auc": 0.9, "cases": 42})
    payload = statement.build(result if predicate is None else pb.ModelRegistered(), {})
    index = world.ledger.add(statement.sign(payload, signer.signing_key))
    world.site.bundle = world.ledger.bundle(index)


@pytest.fixture
def file(at_site: World, tmp_path: Path) -> Path:
    signer = at_site.authority.person(NORTH, "", "", age=timedelta(hours=1))
    at_site.ledger.introduce(NORTH, signer.signing_key)
    submitted(at_site, signer)
    path = tmp_path / "b1m4d1.json"
    result = at_site.run("result", "export", "b1m4d1", "--file", str(path))
    assert result.exit_code == 0, result.output
    return path


def test_verify_offline_with_a_key(at_site: World, file: Path) -> None:
    text = at_site.done("result", "verify", str(file), "--ledger-key", at_site.ledger.verifier_key)
    assert text.count(": yes") == 5
    assert f"signed by north ({NORTH}), entry 2 of demo.ledger" in text
    assert "auc: 0.9" in text


def test_verify_in_json_with_a_key_file(at_site: World, file: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(at_site.ledger.verifier_key + "\n")
    answer = at_site.json("result", "verify", str(file), "--ledger-key", str(tmp_path / "key"))
    assert (answer["verified"], answer["signer"], answer["ledger_index"]) == (True, NORTH, 2)
    assert answer["statement"]["metrics"] == {"auc": 0.9, "cases": 42}


def test_verify_needs_a_key_from_somewhere(at_site: World, file: Path) -> None:
    nowhere = ("--socket", str(file.parent / "none"), "result", "verify", str(file))
    result = at_site.run(*nowhere)
    assert result.exit_code == 6
    assert "LEDGER_KEY_NEEDED" in result.stderr
    assert at_site.run("result", "verify", str(file)).exit_code == 0, "the agent pinned one"


def test_verify_refuses_a_changed_file(at_site: World, file: Path) -> None:
    bundle = json.loads(file.read_text())
    bundle["statement"]["envelope"] = bundle["enrolment"]["envelope"]
    file.write_text(json.dumps(bundle))
    words = ("result", "verify", str(file), "--ledger-key", at_site.ledger.verifier_key)
    result = at_site.run(*words)
    assert result.exit_code == 2
    assert "[NOT_IN_LEDGER]" in result.stderr
    file.write_text("{}")
    assert "CHECKPOINT_INVALID" in at_site.run(*words).stderr
    file.write_text("no JSON")
    assert "BUNDLE_MALFORMED" in at_site.run(*words).stderr


def test_verify_refuses_what_is_no_result(at_site: World, file: Path) -> None:
    signer = at_site.authority.person(NORTH, "", "", age=timedelta(hours=1))
    at_site.ledger.introduce(NORTH, signer.signing_key)
    submitted(at_site, signer, predicate="a model")
    at_site.done("result", "export", "b1m4d1", "--file", str(file))
    words = ("result", "verify", str(file), "--ledger-key", at_site.ledger.verifier_key)
    assert "[NOT_A_RESULT]" in at_site.run(*words).stderr


def test_show_takes_local_names_global_names_and_files(at_site: World, file: Path) -> None:
    assert at_site.json("result", "show", "b1m4d1")["metrics"]["interval"] == [0.9, 1]
    assert "auc: 0.987654321" in at_site.done("result", "show", "b1m4d1")
    whole = at_site.json("result", "show", "north/b1m1d1")
    assert whole["origin"]["ledger_index"] == 2**53 + 1
    assert at_site.json("result", "show", str(file))["verified"] is False
    text = at_site.done("result", "show", str(file))
    assert f"verified: not checked; run housecall result verify {file}\n" in text


def test_export_before_submission(at_site: World, tmp_path: Path) -> None:
    result = at_site.run("result", "export", "b1m4d1", "--file", str(tmp_path / "x"))
    assert result.exit_code == 6
    assert "RESULT_NOT_SUBMITTED" in result.stderr
    assert not (tmp_path / "x").exists()


def test_export_of_a_global_name(elsewhere: World, tmp_path: Path) -> None:
    signer = elsewhere.authority.person(NORTH, "", "", age=timedelta(hours=1))
    elsewhere.ledger.introduce(NORTH, signer.signing_key)
    submitted(elsewhere, signer)
    path = tmp_path / "r.json"
    elsewhere.done("result", "export", "north/b1m1d1", "--file", str(path))
    assert "4. the enrolment is signed" in elsewhere.done("result", "verify", str(path))


def test_ls_at_a_site_and_elsewhere(at_site: World) -> None:
    lines = at_site.done("result", "ls").splitlines()
    assert lines[2].split("  ")[0] == "b1m4d1"
    assert "auc 0.988, cases 42" in lines[2]
    assert at_site.json("result", "ls", "--model", "9") == []


def test_ls_elsewhere(elsewhere: World) -> None:
    (row,) = elsewhere.json("result", "ls")
    assert row["name"] == "north/b1m1d1"
    assert "auc 0.9, cases 12" in elsewhere.done("result", "ls")


def test_submit_releases_what_it_showed(at_site: World) -> None:
    result = at_site.run("result", "submit", "b1m4d1", "--supersede", "--yes")
    assert result.exit_code == 0
    assert at_site.site.drafted.decode() in result.stdout
    assert at_site.site.last(site_pb2.DraftResultRequest).supersede
    assert "Next: housecall result export b1m4d1 --file b1m4d1.json" in result.stderr


def test_executions_at_a_site(at_site: World) -> None:
    lines = at_site.done("execution", "ls", "--state", "failed").splitlines()
    assert lines[2].split()[:6] == ["5", "-", "1", "3", "north/1", "failed"]
    asked = at_site.site.last(site_pb2.ListLocalExecutionsRequest)
    assert asked.state == pb.EXECUTION_STATE_FAILED
    assert "log_tail:\n  | line one\n  | line two" in at_site.done("execution", "show", "5")
    at_site.done("execution", "cancel", "5")
    assert at_site.site.last(site_pb2.CancelLocalExecutionRequest).id == 5


def test_executions_elsewhere(elsewhere: World) -> None:
    elsewhere.registry.executions.append(registry_pb2.Execution(id=5))
    assert elsewhere.json("execution", "show", "5")["state"] is None
    assert elsewhere.run("execution", "cancel", "5").exit_code == 2
    elsewhere.done("execution", "cancel", "5", "--reason", "wrong")
    assert elsewhere.ledger.stated() == pb.ExecutionCancelled(execution_ids=[5], reason="wrong")


def test_reviews(at_site: World) -> None:
    lines = at_site.done("review", "ls").splitlines()
    assert lines[2].split()[:6] == ["1", "run", "1", "tissue", "4", "late"]
    assert lines[3].split()[:2] == ["2", "leave"]
    assert at_site.json("review", "show", "2")["statement"] == '{"what": "would leave"}'


def test_approve_a_run(at_site: World) -> None:
    result = at_site.run("review", "approve", "1")
    assert result.exit_code == 6
    assert "Run this model here?" in result.stderr
    assert at_site.json("review", "approve", "1", "--yes")["approved"]
    assert at_site.site.last(site_pb2.ApproveReviewRequest).digest == "sha256:" + "8" * 64


def test_approve_a_release_shows_it_first(at_site: World) -> None:
    text = at_site.done("review", "approve", "2", "--yes")
    assert text.index('{"what": "would leave"}') < text.index("ledger entry 12")
    assert at_site.site.last(site_pb2.ApproveReviewRequest).digest == "sha256:" + "8" * 64


def test_refuse(at_site: World) -> None:
    assert not at_site.json("review", "refuse", "1", "--yes")["approved"]
    assert at_site.site.last(site_pb2.RefuseReviewRequest).id == 1


@pytest.mark.parametrize(
    ("number", "question", "code"),
    [("1", "Refuse this run?", "CONSENT_REFUSED"), ("2", "Refuse this result?", "RELEASE_REFUSED")],
)
def test_refuse_shows_what_it_states_and_asks(
    at_site: World, terminal: Callable[[], None], number: str, question: str, code: str
) -> None:
    result = at_site.run("review", "refuse", number, typed="\n")
    assert result.exit_code == 11
    assert '{"what": "would leave"}' in result.stdout
    assert f"A refusal states that execution 7 ended refused, code {code};" in result.stdout
    assert f"{question} [y/N]" in result.stderr
    assert "declined: it still waits for review" in result.stderr
    assert not any(isinstance(r, site_pb2.RefuseReviewRequest) for r in at_site.site.asked)
    assert at_site.run("review", "refuse", number, typed="y\n").exit_code == 0


def test_a_statement_is_shown_as_it_was_given(at_site: World) -> None:
    given = '{"payload": "aGlkZGVu", "metrics": 1}'
    at_site.site.waiting = given.encode()
    assert at_site.json("review", "show", "2")["statement"] == given
    assert f"statement: {given}" in at_site.done("review", "show", "1")


def test_submit_shows_the_metrics_below_the_statement(at_site: World) -> None:
    at_site.site.metrics = {"auc": 0.75, "cases": 12}
    text = at_site.done("result", "submit", "b1m4d1", "--yes")
    assert "\nmetrics:\n  auc: 0.75\n  cases: 12\n" in text
    assert text.index("digest of what would leave") < text.index("\nmetrics:")


def test_csv_has_values_whole(at_site: World) -> None:
    header, row = at_site.done("result", "ls", "-o", "csv").splitlines()
    assert header.split(",")[4:6] == ["metrics", "partial"]
    (values,) = csv.reader([row])
    assert json.loads(values[4]) == {"auc": 0.987654321, "cases": 42, "interval": [0.9, 1]}
    assert values[5] == "false"
