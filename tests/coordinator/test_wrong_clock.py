"""Certificates made by a clock that was ahead are good when it is set, and so is the door."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from coordinator import authority, founding, port
from coordinator.founding import found
from coordinator.servicers import authority as servicer
from coordinator.settings import Settings
from housecall import client
from housecall.identity import Identity, renew_after
from housecall.v1 import ledger_pb2, ledger_pb2_grpc
from housecall.v1 import statements_pb2 as pb
from tests.clocks import ahead
from tests.coordinator.world import World, world

Clock = Callable[[timedelta], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the coordinator's, as far as certificates are concerned."""

    def put(by: timedelta) -> None:
        for module in (authority, founding, port, servicer):
            monkeypatch.setattr(module, "datetime", ahead(by))

    return put


def checkpoint(identity: Identity) -> str:
    """Over a connection of its own."""
    with client.connect(identity) as channel, identity.refusals():
        stub = ledger_pb2_grpc.LedgerStub(channel)
        return stub.GetCheckpoint(ledger_pb2.GetCheckpointRequest(), timeout=20).checkpoint


def test_what_was_founded_ahead_is_open_at_once(tmp_path: Path, clock: Clock) -> None:
    clock(timedelta(hours=20))
    with world(tmp_path) as made:
        clock(timedelta(0))
        identity = made.join("north", pb.ROLE_SITE).identity
        assert checkpoint(identity)
        assert identity.certificate.not_valid_after_utc > datetime.now(UTC)


def test_a_certificate_renewed_weeks_ahead_is_good_at_once(
    coordinator: World, tmp_path: Path, clock: Clock
) -> None:
    """Where the coordinator's clock is that wrong, all sites renew."""
    identity = coordinator.join("north", pb.ROLE_SITE).identity
    clock(timedelta(days=25))
    renewed = client.renew(identity, tmp_path / "renewed")
    clock(timedelta(0))
    assert renewed.certificate.not_valid_before_utc < datetime.now(UTC)
    assert checkpoint(renewed)


def test_two_thirds_of_what_lies_ahead(coordinator: World) -> None:
    made = datetime.now(UTC)
    identity = coordinator.join("north", pb.ROLE_SITE).identity
    assert abs(renew_after(identity.certificate) - made - timedelta(days=20)) < timedelta(minutes=1)


def test_the_coordinators_own_is_made_anew_when_its_clock_is_put_back(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = found(Settings(state_dir=tmp_path / "state"), "test", "127.0.0.1:1")
    made: list[x509.Certificate] = []
    real = house.authority.server_pair

    def server_pair(trust_domain: str) -> tuple[bytes, bytes]:
        key, chain = real(trust_domain)
        made.append(x509.load_pem_x509_certificates(chain)[0])
        return key, chain

    monkeypatch.setattr(house.authority, "server_pair", server_pair)
    own = port._ServerCertificate(house)
    clock(timedelta(days=60))
    assert own.configuration() is not None
    assert own.configuration() is None, "it is good"
    clock(timedelta(0))
    assert own.configuration() is not None
    assert own.configuration() is None, "it is good"
    first, second = made
    assert second.not_valid_before_utc < datetime.now(UTC) < first.not_valid_before_utc
