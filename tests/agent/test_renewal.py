"""The certificate is renewed in time, whatever a try ended with; and replaced where it ran out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

import agent.identity
from agent.records import State
from agent.settings import Settings
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.site import Bench, wait_for


def test_a_renewal_that_cannot_be_kept_is_tried_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agent.identity, "CHECK_EVERY_S", 0.05)
    settings = site.enrolled(bench, tmp_path)
    with site.serving(bench, tmp_path, settings) as north:
        uplink, chain = north.agent.uplink, settings.identity_dir / "chain.pem"
        before = uplink.identity.certificate.serial_number
        chain.rename(chain.with_name("kept"))
        chain.mkdir()  # no file can take its place
        uplink.skew_s = -timedelta(days=25).total_seconds()
        wait_for(lambda: "renewal failed" in caplog.messages)
        assert uplink.identity.certificate.serial_number == before
        chain.rmdir()
        wait_for(lambda: uplink.identity.certificate.serial_number != before)
        assert chain.is_file()


def test_what_was_released_before_the_certificate_ran_out_is_accepted_after_it(
    bench: Bench, settings: Settings, tmp_path: Path
) -> None:
    """The way back that the operator's page names, with an outbox that holds a result."""
    with site.serving(bench, tmp_path, settings) as north:
        journal = north.agent.journal
        north.agent.link._outbox.send = lambda _entry: True  # as if it were cut off from here on
        number = bench.order(bench.models[0])
        (entry,) = wait_for(journal.waiting)
    bench.world.run_out(settings.identity_dir)
    agent.identity.enrol(
        bench.world.token("north", pb.ROLE_SITE, renews=True), settings.identity_dir
    )
    with site.serving(bench, tmp_path, settings) as north:
        journal = north.agent.journal
        wait_for(lambda: not journal.waiting())
        (execution,) = journal.executions(execution_id=number)
        sent = journal.outgoing(entry.envelope_digest)
    assert execution.state is State.SUCCEEDED
    assert sent is not None
    assert sent.state == "accepted"
