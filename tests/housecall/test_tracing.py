"""Ids that follow from what was signed, and spans that reach a collector, or are lost in peace."""

from __future__ import annotations

import datetime
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from housecall import tracing
from housecall.errors import Kind, Refusal
from housecall.statement import digest
from housecall.tracing import Place, Span
from tests.collector import Collector, collecting

DIGEST = digest(b"an envelope")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def test_a_statements_ids_are_the_first_bytes_of_its_digest() -> None:
    root = tracing.of_envelope(DIGEST)
    hexadecimal = DIGEST.removeprefix("sha256:")
    assert root.traceparent == f"00-{hexadecimal[:32]}-{hexadecimal[32:48]}-01"
    assert root.parent_id == 0


def test_whoever_knows_the_order_finds_the_same_spans_below_it() -> None:
    root, lines = tracing.of_envelope(DIGEST), [tracing.of_order(DIGEST, n) for n in range(2)]
    assert lines[0] == tracing.of_order(DIGEST, 0)
    assert len({root.span_id, *(each.span_id for each in lines)}) == 3
    assert {each.trace_id for each in lines} == {root.trace_id}
    assert {each.parent_id for each in lines} == {root.span_id}
    step = lines[0].child("step", "name")
    assert step.parent_id == lines[0].span_id
    assert step != lines[1].child("step", "name")


def test_a_traceparent_is_read_as_it_was_written() -> None:
    at = tracing.fresh()
    assert tracing.read(at.traceparent) == Place(at.trace_id, at.span_id)
    for bad in ("", "00-1-2-01", at.traceparent.upper(), f"00-{'0' * 32}-{'1' * 16}-01"):
        assert tracing.read(bad) is None


def test_spans_arrive_with_their_ids_parents_links_and_codes(collector: Collector) -> None:
    root = tracing.of_envelope(DIGEST)
    tracer = tracing.tracer(collector.endpoint, "a-program")
    tracer.report(Span("root", root, 1000.0, 1002.5, link=tracing.of_name("other")))
    with pytest.raises(Refusal), tracer.during("step", root.child("step"), step="infer"):
        raise Refusal(Kind.NOT_READY, "STEP_FAILED", "it failed on case 7")
    tracer.close()
    (above,), (below,) = collector.named("root"), collector.named("step")
    assert above.service == "a-program"
    assert (above.trace, above.span, above.parent) == (root.trace, f"{root.span_id:016x}", "")
    assert (above.began, above.ended) == (1000 * 10**9, 1002 * 10**9 + 5 * 10**8)
    assert above.link == f"{tracing.of_name('other').span_id:016x}"
    assert (below.trace, below.parent, below.error) == (above.trace, above.span, "STEP_FAILED")
    assert below.attributes == {"housecall.step": "infer", "housecall.code": "STEP_FAILED"}
    assert "case 7" not in str(below), "a refusal's message may quote what only the site may see"


def test_an_endpoint_that_nobody_serves_loses_spans_and_holds_nobody_up() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        tracer = tracing.tracer(f"http://127.0.0.1:{taken.getsockname()[1]}", "p", seconds=0.5)
        began = time.monotonic()
        for _ in range(5000):
            tracer.report(Span("lost", tracing.fresh(), 0, 1))
        reported = time.monotonic() - began
        tracer.close()
    assert reported < 5
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    "endpoint",
    ["http://collector.example:4317", "http://10.0.0.7:4317", "collector:4317", "https://"],
)
def test_spans_never_cross_a_network_in_the_clear(endpoint: str) -> None:
    with pytest.raises(Refusal, match="trace_endpoint: expected https://host:port") as caught:
        tracing.tracer(endpoint, "p")
    assert caught.value.code == "SETTINGS_INVALID"


def test_tls_to_a_collector_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = _certificate()
    (tmp_path / "ca.pem").write_bytes(certificate)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
    with collecting(grpc.ssl_server_credentials([(key, certificate)])) as collector:
        tracer = tracing.tracer(collector.endpoint, "p")
        tracer.report(Span("far", tracing.fresh(), 0, 1))
        tracer.close()
    assert collector.named("far")


def test_without_an_endpoint_the_sdk_is_not_even_loaded() -> None:
    code = (
        "import sys; from housecall import tracing; t = tracing.tracer('', 'p')\n"
        "with t.during('x', tracing.fresh()): pass\n"
        "t.close(); print([m for m in sys.modules if m.startswith(('opentelemetry', 'grpc'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_daemons_load_it_only_with_an_endpoint() -> None:
    code = (
        "import sys, agent.telemetry, coordinator.server, coordinator.telemetry\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _certificate() -> tuple[bytes, bytes]:
    """A key and a certificate for localhost that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, made.public_bytes(serialization.Encoding.PEM)
