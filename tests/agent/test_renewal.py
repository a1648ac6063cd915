"""The certificate is renewed in time, whatever a try ended with."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

import agent.identity
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
