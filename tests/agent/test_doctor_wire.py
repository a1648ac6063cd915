"""The doctor on the way to the coordinator: each hop fails for real, and is named."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from agent.backoff import FINAL
from agent.doctor import screen, wire
from agent.doctor.examination import CHECKS, chosen, exit_code, first_failure
from agent.doctor.finding import Level
from agent.doctor.scene import Address
from housecall.errors import EXIT_CODES, Kind
from housecall.identity import make_csr, new_tls_key, private_pem, write_private
from housecall.rpc import RENEWAL
from housecall.v1 import statements_pb2 as pb
from tests.agent.patient import (
    PASSWORD,
    WAY,
    Patient,
    enrolled,
    http_proxy,
    levels,
    listener,
    patient,
    tls_server,
)
from tests.cli.certificates import TestAuthority
from tests.coordinator.world import World, free_port, world

OK, FAILED, SKIPPED = Level.OK, Level.FAILED, Level.SKIPPED
ELSEWHERE = "coordinator.example:8443"
"""A name that only a proxy knows; loopback would be dialled directly."""


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("coordinator")) as made:
        yield made


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site(coordinator: World, tmp_path: Path, request: pytest.FixtureRequest) -> Patient:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[-60:].strip("-")
    return enrolled(coordinator, tmp_path, name)


def port_of(coordinator: World) -> int:
    return int(coordinator.house.address.rpartition(":")[2])


def test_a_way_without_fault(coordinator: World, site: Patient) -> None:
    found = site.look("identity", "clock")
    assert set(levels(found, "identity", *WAY)) == {OK}
    assert coordinator.house.address in found["tcp"].found
    assert "TLSv1.3 with a coordinator of our CA" in found["tls"].found
    assert "knows this site" in found["coordinator"].found
    assert exit_code(site.findings("clock")) == 0


def test_nobody_listens(site: Patient) -> None:
    site.dial(f"127.0.0.1:{free_port()}")
    found = site.look("clock")
    assert levels(found, *WAY) == [OK, OK, FAILED, SKIPPED, SKIPPED, SKIPPED]
    assert "refuses the connection" in found["tcp"].found
    assert found["tls"].found == "needs tcp"
    findings = site.findings("clock")
    assert exit_code(findings) == EXIT_CODES[Kind.UNAVAILABLE]
    assert screen.summary(findings).startswith("first to mend: tcp; is the coordinator running")


def test_a_port_that_swallows_everything(site: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HOP_SECONDS", 0.3)
    forever = threading.Event()

    def swallow(_caller: socket.socket) -> None:
        forever.wait(5)

    with listener(swallow) as port:
        site.dial(f"127.0.0.1:{port}")
        found = site.look("tls")
        forever.set()
    assert levels(found, "tcp", "tls") == [OK, FAILED]
    assert found["tls"].kind is Kind.UNAVAILABLE


@pytest.mark.parametrize("address", ["coordinator.example", "coordinator.example:https", "a:0", ""])
def test_an_address_that_is_none(site: Patient, address: str) -> None:
    site.dial(address)
    found = site.look("coordinator")
    assert levels(found, *WAY[:-1]) == [FAILED] + [SKIPPED] * 4
    assert found["dns"].code == "IDENTITY_DAMAGED"
    assert "expected host:port, as " in found["dns"].found
    assert f", got {address!r}" in found["dns"].found


def test_a_name_that_nobody_knows(site: Patient) -> None:
    site.dial("coordinator.invalid:8443")
    began = time.monotonic()
    found = site.look("clock")
    assert time.monotonic() - began < wire.NAME_SECONDS + 5
    assert found["dns"].level is FAILED
    assert found["dns"].found.startswith("coordinator coordinator.invalid: ")
    assert levels(found, *WAY[1:]) == [SKIPPED] * 5


def test_a_resolver_that_hangs_is_given_up(site: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(wire, "NAME_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hangs.wait(10) and [])
    site.dial("coordinator.example:8443")
    found = site.look("dns")["dns"]
    hangs.set()
    assert (found.level, found.kind) == (FAILED, Kind.UNAVAILABLE)
    assert "no answer within 0.1 s" in found.found


def test_somebody_who_breaks_tls_open_is_named(site: Patient, tmp_path: Path) -> None:
    with listener(tls_server(*TestAuthority().server(), tmp_path)) as port:
        site.dial(f"127.0.0.1:{port}")
        found = site.look("clock")["tls"]
    assert (found.level, found.kind) == (FAILED, Kind.UNAUTHENTICATED)
    assert found.found.startswith("not a coordinator of our CA")
    assert "issued by 'CN=test root'" in found.found
    assert "TLS inspection" in found.fix


def test_a_port_that_speaks_something_else(site: Patient) -> None:
    with listener(lambda caller: caller.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        site.dial(f"127.0.0.1:{port}")
        found = site.look("tls")["tls"]
    assert found.level is FAILED
    assert "is it the coordinator's port?" in found.fix


def test_a_port_that_hangs_up(site: Patient) -> None:
    with listener(lambda caller: caller.close()) as port:
        site.dial(f"127.0.0.1:{port}")
        found = site.look("tls")["tls"]
    assert found.level is FAILED
    assert str(port) in found.found


def test_a_coordinators_certificate_that_ran_out(site: Patient, tmp_path: Path) -> None:
    authority = TestAuthority()
    write_private(site.identity_dir / "root.pem", authority.root_pem)
    leaf = authority.leaf(x509.DNSName("coordinator.housecall"), timedelta(days=3))
    with listener(tls_server(*leaf, tmp_path)) as port:
        site.dial(f"127.0.0.1:{port}")
        found = site.look("tls")["tls"]
    assert "certificate has expired" in found.found
    assert "clock" in found.fix


def test_a_site_whose_certificate_ran_out(coordinator: World, site: Patient) -> None:
    own, key = site.identity, new_tls_key()
    over = datetime.now(UTC) - timedelta(minutes=1)
    authority = coordinator.house.authority
    leaf = authority.certify(make_csr(key, own.name), own.name, over)
    write_private(site.identity_dir / "chain.pem", authority.chain_pem(leaf).encode())
    write_private(site.identity_dir / "tls.key", private_pem(key))
    findings = site.findings("clock")
    first = first_failure(findings)
    assert first is not None
    assert first.check == "tls"
    assert first.verdict.found.endswith("is of our CA, and hung up on this site's certificate")
    found = site.look("identity", "clock")
    assert levels(found, "identity", "tcp", "tls", "coordinator") == [FAILED, OK, FAILED, SKIPPED]
    assert found["identity"].fix == f"is the clock right? Else {RENEWAL}"
    assert "leave the identity folder where it is" in FINAL["CERTIFICATE_EXPIRED"]
    assert exit_code(site.findings("identity")) == EXIT_CODES[Kind.UNAUTHENTICATED]


def test_a_server_that_says_why_it_takes_no_certificate(
    coordinator: World, site: Patient, tmp_path: Path
) -> None:
    pair = coordinator.house.authority.server_pair(coordinator.house.trust_domain)
    serve = tls_server(*pair, tmp_path, takes=TestAuthority().root_pem)
    with listener(serve) as port:
        site.dial(f"127.0.0.1:{port}")
        found = site.look("tls")["tls"]
    assert "does not take this site's certificate: tlsv1 alert unknown ca" in found.found
    assert found.kind is Kind.UNAUTHENTICATED


def test_keys_of_somebody_else(coordinator: World, site: Patient) -> None:
    write_private(site.identity_dir / "tls.key", private_pem(new_tls_key()))
    found = site.look("identity")["identity"]
    assert "not the key of the certificate" in found.found
    assert site.look("tls")["tls"].level is FAILED


def test_a_certificate_of_another_ca(coordinator: World, site: Patient) -> None:
    write_private(site.identity_dir / "root.pem", TestAuthority().root_pem)
    found = site.look("identity", "tls")
    assert "does not lead to the CA in root.pem" in found["identity"].found
    assert "not a coordinator of our CA" in found["tls"].found


def test_a_certificate_that_should_have_been_renewed(coordinator: World, site: Patient) -> None:
    own, key = site.identity, new_tls_key()
    soon = datetime.now(UTC) + timedelta(minutes=1)  # of six: validity begins five minutes back
    authority = coordinator.house.authority
    leaf = authority.certify(make_csr(key, own.name), own.name, soon)
    write_private(site.identity_dir / "chain.pem", authority.chain_pem(leaf).encode())
    write_private(site.identity_dir / "tls.key", private_pem(key))
    found = site.look("identity")["identity"]
    assert found.level is Level.WARNING
    assert "due for renewal since" in found.found


def test_a_site_that_was_revoked(coordinator: World, site: Patient) -> None:
    name = site.identity.name
    coordinator.operator.state(pb.ParticipantRevoked(name=name, reason="stolen disk"))
    found = site.look("clock")
    assert levels(found, *WAY) == [OK, OK, OK, OK, FAILED, SKIPPED]
    assert (found["coordinator"].code, found["coordinator"].kind) == (
        "REVOKED",
        Kind.UNAUTHENTICATED,
    )


def test_a_person_in_a_sites_place(coordinator: World, tmp_path: Path) -> None:
    made = patient(tmp_path)
    coordinator.join("wrong", pb.ROLE_PERSON).identity.save(made.identity_dir)
    found = made.look("coordinator")["coordinator"]
    assert (found.level, found.kind) == (FAILED, Kind.NOT_ALLOWED)
    assert "ROLE_PERSON" in found.found


def test_clocks_that_differ(site: Patient) -> None:
    site.settle(max_clock_skew_s=1e-9)
    found = site.look("clock")["clock"]
    assert found.level is FAILED
    assert found.fix == "set this machine's clock (NTP)"


def test_through_a_proxy_to_the_end(coordinator: World, site: Patient) -> None:
    header = "Proxy-Authorization: Basic " + base64.b64encode(f"dora:{PASSWORD}".encode()).decode()
    with listener(http_proxy("200 OK", port_of(coordinator), wants=header)) as port:
        site.dial(ELSEWHERE)
        site.settle(proxy=f"http://dora:{PASSWORD}@127.0.0.1:{port}")
        found = site.look("clock")
    assert set(levels(found, *WAY)) == {OK}
    assert found["proxy"].found == f"127.0.0.1:{port} opens a tunnel to {ELSEWHERE}"
    assert "through the proxy" in found["tcp"].found
    assert PASSWORD not in str(found)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("407 Proxy Authentication Required", "does not accept the user and password"),
        ("403 Forbidden", "ask who runs it to allow CONNECT"),
        ("502 Bad Gateway", "it cannot reach the coordinator"),
        ("gibberish", "is it an HTTP proxy?"),
    ],
)
def test_a_proxy_that_opens_nothing(site: Patient, status: str, words: str) -> None:
    with listener(http_proxy(status, 1)) as port:
        site.dial(ELSEWHERE)
        site.settle(proxy=f"http://dora:{PASSWORD}@127.0.0.1:{port}")
        findings = site.findings("clock")
    found = {each.check: each.verdict for each in findings}
    assert levels(found, *WAY) == [OK, FAILED, SKIPPED, SKIPPED, SKIPPED, SKIPPED]
    assert words in found["proxy"].found
    assert PASSWORD not in str(screen.document(findings))
    assert base64.b64encode(f"dora:{PASSWORD}".encode()).decode() not in str(findings)


def test_a_proxy_that_is_not_there(site: Patient) -> None:
    site.dial(ELSEWHERE)
    site.settle(proxy=f"http://127.0.0.1:{free_port()}")
    assert "cannot reach it" in site.look("proxy")["proxy"].found
    site.settle(proxy="http://proxy.invalid:3128")
    assert site.look("clock")["dns"].found.startswith("proxy proxy.invalid: ")


def test_a_proxy_that_is_not_for_this_address(
    site: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = "set, but not used for this address (loopback or NO_PROXY)"
    assert site.look("proxy")["proxy"].found == "none on the way"
    site.settle(proxy=f"http://127.0.0.1:{free_port()}")
    assert site.look("proxy")["proxy"].found == unused
    site.settle()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    found = site.look("tls")
    assert found["proxy"].found == unused
    assert levels(found, "dns", "proxy", "tcp", "tls") == [OK] * 4


def test_needs_come_with_a_check_and_in_order() -> None:
    assert [each.name for each in chosen(["tls"])] == ["settings", "dns", "proxy", "tcp", "tls"]
    names = [each.name for each in CHECKS]
    for each in CHECKS:
        assert all(names.index(need) < names.index(each.name) for need in each.needs)


def test_addresses() -> None:
    assert Address.read("[::1]:8443") == Address("::1", 8443)
    assert str(Address("::1", 8443)) == "[::1]:8443"
    assert Address("10.0.0.1", 1).is_literal
    assert not Address("a.example", 1).is_literal
