"""Bad input by hand at a real site: each gets its code, says what to do, and changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from examples.demo.world import COMMITTEE, MODEL_OWNER, OPERATOR, World
from examples.images.catalog import EXAMPLES

MODEL = EXAMPLES / "breast_cancer" / "models" / "logistic_regression"


def refused(world: World, who: str, *words: str) -> tuple[str, str]:
    """(code, message) of a command that must be refused; nothing may be accepted by it."""
    before = _tree_size(world)
    done = world.run(who, *words, "--output", "json", check=False)
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert _tree_size(world) == before, "a refused command changed the ledger"
    assert error["message"].strip(), done.stdout
    return error["code"], error["message"]


def _tree_size(world: World) -> int:
    checkpoint = world.json(OPERATOR, "ledger", "checkpoint")["checkpoint"]
    return int(checkpoint["size"] if isinstance(checkpoint, dict) else checkpoint.split("\n")[1])


def register(data: Path, labels: Path) -> list[str]:
    words = ["dataset", "register", "--name", "bad", "--description", "bad", "--location", "here"]
    return [*words, "--benchmark", "1", "--data-path", str(data), "--labels-path", str(labels),
            "--yes"]  # fmt: skip


@pytest.fixture
def raw(world: World) -> Path:
    """A copy of north's raw data that a test may spoil, where north allows data to be."""
    copy = world.raw("north") / "spoilt"
    shutil.rmtree(copy, ignore_errors=True)
    for part in ("data", "labels"):
        shutil.copytree(world.raw("north") / part, copy / part)
    return copy


def test_paths(world: World, raw: Path, tmp_path: Path) -> None:
    code, message = refused(world, "north", *register(raw / "nowhere", raw / "labels"))
    assert code == "DATA_MISSING"
    assert "nowhere" in message
    (raw / "empty").mkdir()
    assert refused(world, "north", *register(raw / "empty", raw / "labels"))[0] == "DATA_EMPTY"
    (raw / "loop").mkdir()
    (raw / "loop" / "again").symlink_to(raw / "loop")
    code, _ = refused(world, "north", *register(raw / "loop", raw / "labels"))
    assert code in {"DATA_SYMLINK_LOOP", "DATA_EMPTY"}
    (raw / "data" / "out").symlink_to("/etc")
    assert refused(world, "north", *register(raw / "data", raw / "labels"))[0] == "DATA_OUTSIDE"
    code, message = refused(world, "north", *register(tmp_path, raw / "labels"))
    assert code == "PATH_NOT_ALLOWED"
    assert "allowed_paths" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_data_that_containers_cannot_read(world: World, raw: Path) -> None:
    (raw / "data").chmod(0o700)
    code, message = refused(world, "north", *register(raw / "data", raw / "labels"))
    assert code == "DATA_UNREADABLE"
    assert "10001" in message


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("tasks:", "colour: blue\ntasks:", "CONFIG_UNKNOWN_KEY"),
        ("  infer:", "  guess:", "CONFIG_UNKNOWN_TASK"),
        ("      data_path:", "      labels:", "CONFIG_UNKNOWN_LABEL"),
        ("mount_path: /mlcommons/volumes/data", "mount_path: volumes/data", "CONFIG_BAD_PATH"),
    ],
)
def test_container_configurations(
    world: World, tmp_path: Path, old: str, new: str, code: str
) -> None:
    text = (MODEL / "container_config.yaml").read_text()
    assert old in text
    config = tmp_path / "container_config.yaml"
    config.write_text(text.replace(old, new, 1))
    words = ["container", "register", "--config", str(config), "--role", "model"]
    got, message = refused(world, MODEL_OWNER, *words)
    assert got == code
    assert "expected" in message


def test_images(world: World, tmp_path: Path) -> None:
    text = (MODEL / "container_config.yaml").read_text()
    config = tmp_path / "container_config.yaml"
    config.write_text(text.replace("housecall-demo/", "housecall-nowhere/"))
    words = ["container", "register", "--config", str(config), "--role", "model"]
    assert refused(world, MODEL_OWNER, *words)[0] == "IMAGE_NOT_FOUND"


def test_tokens(world: World, tmp_path: Path) -> None:
    used = world.folder / "mona.token"
    home = World(world.folder, world.say, world.sockets)
    (world.folder / "people" / "nobody").mkdir(parents=True, exist_ok=True)
    assert refused(home, "nobody", "enroll", "--token", f"@{used}")[0] == "TOKEN_USED"
    token = tmp_path / "late.token"
    words = ["admin", "token", "create", "--person", "late", "--out", str(token)]
    world.run(OPERATOR, *words)
    listed = world.json(OPERATOR, "admin", "token", "ls")
    (open_token,) = [row["token_id"] for row in listed if row["state"] == "open"]
    world.run(OPERATOR, "admin", "token", "revoke", open_token)
    assert refused(home, "nobody", "enroll", "--token", f"@{token}")[0] == "TOKEN_REVOKED"
    assert refused(home, "nobody", "enroll", "--token", "hc1.rubbish")[0] == "TOKEN_MALFORMED"
    code, _ = refused(home, "nobody", "enroll", "--token", f"@{world.folder / 'north.token'}")
    assert code == "TOKEN_WRONG_ROLE"


def test_a_decision_by_someone_who_may_not(world: World) -> None:
    words = ["association", "approve", "1", "--reason", "mine"]
    assert refused(world, MODEL_OWNER, *words)[0] in {"NOT_ENTITLED", "ASSOCIATION_NOT_FOUND"}


def test_what_needs_a_person_is_refused_without_one(world: World, raw: Path) -> None:
    words = register(raw / "data", raw / "labels")
    code, message = refused(world, "north", *words[:-1])
    assert code == "CONFIRMATION_NEEDED"
    assert "--yes" in message


def test_unknown_things_are_named(world: World) -> None:
    assert refused(world, COMMITTEE, "benchmark", "show", "77")[0] == "BENCHMARK_NOT_FOUND"
    assert refused(world, "north", "dataset", "prepare", "77")[0] == "DATASET_NOT_FOUND"
    assert refused(world, "north", "result", "show", "b1m9d9")[0] == "RESULT_NOT_FOUND"


def test_no_coordinator_and_wrong_ca(world: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(world.folder / "people" / MODEL_OWNER, home)
    facts_file = next(home.rglob("identity.json"))
    facts = json.loads(facts_file.read_text())
    foreign = World(world.folder, world.say, world.sockets)
    foreign.environment = lambda who: {"HOUSECALL_HOME": str(home)}  # type: ignore[method-assign]
    facts_file.write_text(json.dumps({**facts, "address": "127.0.0.1:1"}))
    done = foreign.run("mona", "benchmark", "ls", "--output", "json", check=False)
    assert json.loads(done.stdout)["error"]["code"] == "UNREACHABLE"
    assert done.returncode == 8
    facts_file.write_text(json.dumps(facts))
    from coordinator.authority import CertificateAuthority

    other = CertificateAuthority.create(tmp_path / "ca", "demo")
    (facts_file.parent / "root.pem").write_bytes(other.root_pem)
    done = foreign.run("mona", "benchmark", "ls", "--output", "json", check=False)
    assert json.loads(done.stdout)["error"]["code"] == "WRONG_CA"
