"""Associations, models and containers: what persons state, and what they see."""

from __future__ import annotations

import json
import os
from pathlib import Path

import grpc
import pytest

from cli.commands import model_associate
from housecall import statement
from housecall.v1 import registry_pb2, site_pb2
from housecall.v1 import statements_pb2 as pb
from tests.cli.conftest import World
from tests.cli.fake_registry import NORTH, container_digest, digest, origin

CONFIG = """\
container_type: DockerImage
image: demo/forest:1
tasks:
  infer:
    input_volumes:
      data_path: {mount_path: /data, type: directory}
    output_volumes:
      output_path: {mount_path: /out, type: directory}
"""


def test_ls_filters_by_state(elsewhere: World) -> None:
    lines = elsewhere.done("association", "ls", "--state", "approved").splitlines()
    assert lines[2].split()[:6] == ["1", "1", "north/1", "-", "approved", "1"]
    request = elsewhere.registry.last(registry_pb2.ListAssociationsRequest)
    assert request.state == registry_pb2.ASSOCIATION_STATE_APPROVED
    assert elsewhere.json("association", "ls", "--state", "rejected") == []


def test_ls_at_a_site_completes_the_datasets_name(at_site: World) -> None:
    at_site.done("association", "ls", "--dataset", "1")
    assert at_site.registry.last(registry_pb2.ListAssociationsRequest).dataset_id == "north/1"


def test_show_has_the_history(elsewhere: World) -> None:
    assert "what: requested" in elsewhere.done("association", "show", "1")


@pytest.mark.parametrize(
    ("verb", "decision"), [("approve", pb.DECISION_APPROVE), ("reject", pb.DECISION_REJECT)]
)
def test_a_vote_is_signed_on_the_request_it_means(
    elsewhere: World, verb: str, decision: pb.Decision.ValueType
) -> None:
    text = elsewhere.done("association", verb, "1", "--reason", "looked at it")
    stated = statement.unverified(elsewhere.ledger.envelopes[-1])
    assert isinstance(stated.predicate, pb.AssociationDecided)
    assert (stated.predicate.decision, stated.predicate.reason) == (decision, "looked at it")
    assert stated.subjects == {"association 1": digest("5")}
    assert text.splitlines()[0].startswith("association 1: dataset north/1 of north")


def test_a_vote_needs_a_reason(elsewhere: World) -> None:
    result = elsewhere.run("association", "approve", "1")
    assert result.exit_code == 2
    assert "Missing option '--reason'" in result.stderr


@pytest.mark.parametrize("verb", ["approve", "reject", "withdraw"])
def test_a_reason_says_something(elsewhere: World, verb: str) -> None:
    before = len(elsewhere.ledger.envelopes)
    result = elsewhere.run("association", verb, "1", "--reason", " ")
    assert result.exit_code == 2
    assert "--reason: expected a text, got an empty one" in result.stderr
    assert "[USAGE]" in result.stderr
    assert len(elsewhere.ledger.envelopes) == before


def test_withdraw_at_a_site_is_a_draft(at_site: World) -> None:
    at_site.done("association", "withdraw", "1", "--reason", "recalled", "--yes")
    assert at_site.site.last(site_pb2.DraftWithdrawalRequest).reason == "recalled"
    assert at_site.site.last(site_pb2.ReleaseRequest).digest


def test_withdraw_by_a_person_is_asked_and_signed(elsewhere: World) -> None:
    words = ("association", "withdraw", "2", "--reason", "r")
    assert elsewhere.run(*words).exit_code == 6
    elsewhere.done(*words, "--yes")
    assert elsewhere.ledger.stated() == pb.AssociationWithdrawn(association_id=2, reason="r")


def test_container_register_computes_the_one_digest(elsewhere: World, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "p.yaml").write_text("trees: 3\n")
    (tmp_path / "weights.tar.gz").write_bytes(b"weights")
    image = digest("7")
    words = (
        *("container", "register", "--role", "model", "--config", str(tmp_path / "c.yaml")),
        *("--parameters", str(tmp_path / "p.yaml"), "--image-digest", image),
        *("--additional-files", str(tmp_path / "weights.tar.gz")),
    )
    result = elsewhere.run(*words)
    assert result.exit_code == 0, result.output
    stated = elsewhere.ledger.stated()
    files = statement.digest(b"weights")
    expected = statement.container_digest(image, CONFIG, "trees: 3\n", files)
    assert stated.container_digest == expected
    assert (stated.name, stated.role) == ("forest", pb.CONTAINER_ROLE_MODEL)
    assert stated.additional_files.uri == (tmp_path / "weights.tar.gz").as_uri()
    assert "Next: housecall model register --container 4" in result.stderr


def test_container_register_refuses_before_anything_is_sent(
    elsewhere: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(elsewhere.ledger.envelopes)
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.replace("data_path", "records"))
    words = ("container", "register", "--role", "model", "--config", str(config))
    result = elsewhere.run(*words, "--image-digest", digest("7"))
    assert result.exit_code == 2
    assert "CONFIG_UNKNOWN_LABEL" in result.stderr
    config.write_text(CONFIG)
    assert "DIGEST_INVALID" in elsewhere.run(*words, "--image-digest", "sha256:7").stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    result = elsewhere.run(*words)
    assert result.exit_code == 3
    assert "IMAGE_NOT_FOUND" in result.stderr
    result = elsewhere.run(*words, "--additional-files-digest", digest("1"))
    assert result.exit_code == 2
    assert len(elsewhere.ledger.envelopes) == before


def test_container_register_asks_the_engine(
    elsewhere: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    _engine(tmp_path, monkeypatch)
    elsewhere.done("container", "register", "--role", "model", "--config", str(tmp_path / "c.yaml"))
    assert elsewhere.ledger.stated().image_digest == digest("2")


@pytest.mark.parametrize("known", [digest("1"), digest("2")])
def test_a_digest_may_not_contradict_the_engine(
    elsewhere: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    config = tmp_path / "c.yaml"
    words = ("container", "register", "--role", "model", "--config", str(config))
    _engine(tmp_path, monkeypatch)
    named = CONFIG.replace("forest:1", f"forest:1@{digest('3')}")
    for text, more in ((CONFIG, ("--image-digest", digest("3"))), (named, ())):
        config.write_text(text)
        result = elsewhere.run(*words, *more)
        assert result.exit_code == 5
        assert f"demo/forest:1: expected {digest('3')}, got {digest('2')} or" in result.stderr
        assert "[IMAGE_DIGEST_DIFFERS]" in result.stderr
    config.write_text(CONFIG)
    elsewhere.done(*words, "--image-digest", known)
    assert elsewhere.ledger.stated().image_digest == known


def test_a_name_that_the_engine_does_not_know_is_accepted(
    elsewhere: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.replace("forest:1", "other:1"))
    _engine(tmp_path, monkeypatch)
    words = ("container", "register", "--role", "model", "--config", str(config))
    elsewhere.done(*words, "--image-digest", digest("3"))
    assert elsewhere.ledger.stated().image_digest == digest("3")


def _engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docker command that knows demo/forest:1 and nothing else."""
    found = {"Id": digest("1"), "RepoDigests": [f"demo/forest@{digest('2')}"]}
    docker = folder / "docker"
    docker.write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        '[ $last = demo/forest:1 ] || { echo "no such image $last" >&2; exit 1; }\n'
        f"cat <<'END'\n{json.dumps(found)}\nEND\n"
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_container_and_model_lists(elsewhere: World) -> None:
    assert len(elsewhere.json("container", "ls")) == 3
    assert "configuration:\n    | container_type" in elsewhere.done("container", "show", "1")
    lines = elsewhere.done("model", "ls").splitlines()
    assert lines[2].split() == ["1", "forest", "ada", "3", container_digest(3)[7:19]]
    assert elsewhere.json("model", "show", "2")["statement"]["name"] == "neighbours"


def test_model_register_pins_its_container(elsewhere: World) -> None:
    elsewhere.done("model", "register", "--name", "net", "--container", "3")
    stated = elsewhere.ledger.stated()
    assert stated.container == pb.Pin(id=3, digest=container_digest(3))


def test_model_associate_without_a_reference_dataset(elsewhere: World) -> None:
    elsewhere.done("model", "associate", "2", "--benchmark", "1", "--yes")
    stated = elsewhere.ledger.stated()
    assert isinstance(stated, pb.AssociationRequested)
    assert (stated.model_id, stated.test_digest) == (2, "")


def test_model_associate_cites_the_test_that_stands(elsewhere: World) -> None:
    _wants_test(elsewhere)
    elsewhere.registry.results.append(_test_result())
    result = elsewhere.run("model", "associate", "2", "--benchmark", "1", "--yes")
    assert result.exit_code == 0, result.output
    assert elsewhere.ledger.stated().test_digest == digest("8")
    assert "auc: 0.75" in result.stdout


def test_model_associate_waits_for_an_open_test(
    elsewhere: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wants_test(elsewhere)
    test = _execution(pb.EXECUTION_STATE_RUNNING)
    elsewhere.registry.executions.append(test)

    def ends(_seconds: float) -> None:
        elsewhere.registry.executions[0].state = pb.EXECUTION_STATE_SUCCEEDED
        elsewhere.registry.results.append(_test_result())

    monkeypatch.setattr(model_associate, "sleep", ends)
    result = elsewhere.run("model", "associate", "2", "--benchmark", "1", "--yes")
    assert result.exit_code == 0, result.output
    assert "test, execution 8: running: infer" in result.stderr
    assert elsewhere.ledger.stated().test_digest == digest("8")


def test_model_associate_says_why_a_test_failed(elsewhere: World) -> None:
    _wants_test(elsewhere)
    failed = _execution(pb.EXECUTION_STATE_FAILED)
    failed.reason = "STEP_FAILED"
    elsewhere.registry.executions.append(failed)
    result = elsewhere.run("model", "associate", "2", "--benchmark", "1", "--yes")
    assert result.exit_code == 6
    assert isinstance(elsewhere.ledger.stated(), pb.ExecutionRequested)
    assert "STEP_FAILED" in result.stderr
    assert "[TEST_FAILED]" in result.stderr


def test_model_associate_outlives_a_restart_of_the_coordinator(
    elsewhere: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wants_test(elsewhere)
    elsewhere.registry.executions.append(_execution(pb.EXECUTION_STATE_WAITING_CONSENT))
    away = iter([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])

    def passes(_seconds: float) -> None:
        elsewhere.registry.problem = next(away, None)
        if elsewhere.registry.problem is None:
            elsewhere.registry.executions[0].state = pb.EXECUTION_STATE_SUCCEEDED
            elsewhere.registry.results.append(_test_result())

    monkeypatch.setattr(model_associate, "sleep", passes)
    result = elsewhere.run("model", "associate", "2", "--benchmark", "1", "--yes")
    assert result.exit_code == 0, result.output
    hint = "a person at the reference site must act (`housecall review ls` there)"
    assert f"test, execution 8: waiting_consent; {hint}" in result.stderr
    assert result.stderr.count("test, execution 8: not to be seen, ") == 2
    assert elsewhere.ledger.stated().test_digest == digest("8")


def test_model_associate_gives_up_in_time(
    elsewhere: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _wants_test(elsewhere)
    elsewhere.registry.executions.append(_execution(pb.EXECUTION_STATE_QUEUED))
    monkeypatch.setattr(model_associate, "POLL_SECONDS", 0.6)
    result = elsewhere.run("model", "associate", "2", "--benchmark", "1", "-y", "--timeout", "1")
    assert result.exit_code == 6
    assert "[TEST_NOT_ENDED]" in result.stderr


def _wants_test(world: World) -> None:
    world.registry.benchmark.policy.reference_dataset_id = "north/1"


def _test_result() -> registry_pb2.Result:
    result = registry_pb2.Result(
        id=2,
        name="north/b1m2d1",
        origin=origin(NORTH, "8"),
        statement=pb.ResultSubmitted(
            purpose=pb.PURPOSE_TEST, model=pb.Pin(id=2, digest=container_digest(3))
        ),
    )
    result.statement.metrics.update({"auc": 0.75})
    return result


def _execution(state: pb.ExecutionState.ValueType) -> registry_pb2.Execution:
    return registry_pb2.Execution(
        id=8,
        dataset_id="north/1",
        model=pb.Pin(id=2, digest=container_digest(3)),
        purpose=pb.PURPOSE_TEST,
        state=state,
        step="infer" if state == pb.EXECUTION_STATE_RUNNING else "",
    )
