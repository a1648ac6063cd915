"""What both programs say while they work, at their most talkative: ids, and no secret, no data."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from agent.local.messages import receipt_of
from agent.settings import Settings
from coordinator import settings as coordinators
from coordinator.founding import found
from housecall.errors import Refusal
from housecall.logs import JsonLines
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.process import agent_process, founded
from tests.agent.site import Bench, Site, wait_for
from tests.agent.test_orders import policy, ready_with_second, wait_ended
from tests.coordinator.process import PROGRAMS, coordinator_process

TOKEN = re.compile(r"hc1\.[A-Za-z0-9_-]{20,}")
PASSWORD = "sEcret-of-the-database"


def test_logs_have_ids_and_nothing_secret(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    with coordinator_process(tmp_path, log_level="debug") as world:
        bench = founded(world)
        settings = site.enrolled(bench, tmp_path)
        with agent_process(settings, log):
            north = Site(bench, tmp_path, settings, agent=None)  # type: ignore[arg-type]
            wait_for(lambda: b'"link up"' in log.read_bytes())
            assert north.register() == "north/1"
            with pytest.raises(Refusal):  # no engine here has its image
                north.prepare()
    agent, coordinator = log.read_text(), (tmp_path / "coordinator.log").read_text()
    expect_ids(agent, coordinator)
    for secret in secrets(tmp_path, settings):
        assert secret not in agent + coordinator
    assert not TOKEN.search(agent + coordinator)
    for private in (str(north.data), "a.txt", "data of a", "labels of a"):
        assert private not in agent + coordinator, "a site's data and where it lies"


def expect_ids(agent: str, coordinator: str) -> None:
    """Every line of both is one object of the same form."""
    said = [[json.loads(line) for line in log.splitlines()] for log in (agent, coordinator)]
    for line in (line for lines in said for line in lines):
        assert {"time", "level", "logger", "message"} <= line.keys()
    (accepted,) = [line for line in said[1] if line.get("kind") == "DatasetRegistered"]
    assert (accepted["message"], accepted["id"]) == ("accepted", "north/1")
    assert accepted["caller"] == "spiffe://test/site/north"
    assert len(accepted["trace_id"]) == 32
    (ended,) = [line for line in said[0] if line["message"] == "preparation ended"]
    assert ended["dataset"] == "north/1"


def test_an_order_can_be_followed_from_its_arrival_to_its_receipt(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By ids alone: each line names what the next one is looked up by."""
    caplog.set_level("DEBUG", "agent")
    settings = site.enrolled(bench, tmp_path, policy_file=policy(tmp_path))
    with site.serving(bench, tmp_path, settings) as north:
        number = bench.order(ready_with_second(bench, north))
        assert wait_ended(bench, number).state == pb.EXECUTION_STATE_SUCCEEDED
        wait_for(lambda: not north.agent.journal.waiting())
        (entry,) = north.agent.journal.sent_about("result:b1m2d1")
    form = JsonLines(journal=False)
    lines = [json.loads(form.format(record)) for record in caplog.records]
    (order,) = [line for line in lines if line.get("order") == number]
    assert len(order["trace_id"]) == 32
    local = order["execution"]
    assert {"execution": local, "decision": "allow", "rule": "trusted"}.items() <= next(
        line.items() for line in lines if line["message"] == "consent"
    )
    steps = [
        (line["step"], line["state"]) for line in lines if line.get("owner") == f"execution:{local}"
    ]
    assert steps == [
        ("infer", "RUNNING"),
        ("infer", "SUCCEEDED"),
        ("evaluate", "RUNNING"),
        ("evaluate", "SUCCEEDED"),
    ]
    index = receipt_of(entry).ledger_index
    (receipt,) = [line for line in lines if line.get("index") == index]
    assert (receipt["message"], receipt["kind"]) == ("accepted", "ResultSubmitted")
    assert receipt["digest"] == entry.envelope_digest


def secrets(folder: Path, settings: Settings) -> Iterator[str]:
    """Each private key of everyone, in every spelling in which it could have been said."""
    keys = [*folder.rglob("*.key"), *settings.state_dir.rglob("*.key")]
    assert len(keys) > 8
    for path in keys:
        pem = path.read_bytes()
        key = serialization.load_pem_private_key(pem, password=None)
        raw = key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        yield from pem.decode().splitlines()[1:2]
        yield base64.b64encode(raw)[-40:].decode()
        yield raw[-32:].hex()


def test_a_databases_password_is_not_said(tmp_path: Path) -> None:
    found(coordinators.Settings(state_dir=tmp_path / "coordinator"), "test", "127.0.0.1:1")
    url = f"postgresql+psycopg://housecall:{PASSWORD}@127.0.0.1:1/housecall"
    done = subprocess.run(
        [PROGRAMS / "housecall-coordinator", "serve", "--state-dir", tmp_path / "coordinator"],
        env={
            **os.environ,
            "HOUSECALL_COORDINATOR_DATABASE_URL": url,
            "HOUSECALL_COORDINATOR_LOG_LEVEL": "debug",
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode
    assert PASSWORD.encode() not in done.stderr + done.stdout
