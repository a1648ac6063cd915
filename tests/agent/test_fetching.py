"""Fetching: public places only, through the proxy, by known CAs, and taken up where it broke."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import agent.fetching
from agent.fetching import Outward, fetch
from housecall.errors import Refusal
from housecall.identity import new_tls_key, private_pem
from housecall.proxy import Proxy, parse
from tests.housecall.connect_proxy import connect_proxy

CONTENT = bytes(range(256)) * 4096
MOST = 10 * 2**20


@dataclass
class Source:
    """Serves CONTENT, and breaks off after each of `breaks` bytes of an answer in turn."""

    port: int = 0
    etag: str = '"one"'
    breaks: list[int] = field(default_factory=list)
    location: str = ""
    ranges: list[str] = field(default_factory=list)

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.ranges.append(request.headers.get("Range", ""))
        if self.location:
            request.send_response(302)
            request.send_header("Location", self.location)
            request.end_headers()
            return
        start = 0
        if self.ranges[-1] and request.headers.get("If-Range") == self.etag:
            start = int(self.ranges[-1].removeprefix("bytes=").removesuffix("-"))
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(CONTENT) - start))
        request.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        body = CONTENT[start:]
        request.wfile.write(body[: self.breaks.pop(0)] if self.breaks else body)


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Source]:
    source = Source()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            """Clients that do not trust the certificate hang up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        source.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield source
        server.shutdown()


@pytest.fixture
def source() -> Iterator[Source]:
    with serving() as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.fetching, "RETRY_S", 0.01)


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS by a CA of its own, and the file with that CA."""
    key, now = new_tls_key(), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "ca.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(private_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, folder / "key.pem")
    return context, file


def fetched(url: str, folder: Path, **fields: object) -> bytes:
    outward = Outward(**{"allow_private": True} | fields)  # type: ignore[arg-type]
    fetch(url, folder / "got", MOST, outward=outward)
    return (folder / "got").read_bytes()


def refused(url: str, folder: Path, **fields: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        fetched(url, folder, **fields)
    return caught.value


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "[::1]",
        "[fe80::1]",
        "[fd00::1]",
        "[::ffff:10.1.2.3]",
        "[64:ff9b::a01:203]",
        "2130706433",
    ],
)
def test_private_places_are_refused(host: str, tmp_path: Path) -> None:
    refusal = refused(f"http://{host}/x", tmp_path, allow_private=False)
    assert refusal.code == "ADDITIONAL_FILES_PRIVATE"
    assert "allow_private_sources" in refusal.message


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "10.66051",
        "192.168.1.1.",
        "files.localhost.",
        "[fd00::1]",
        "\uff11\uff12\uff17.1",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_is_not_asked_for_private_places(scheme: str, host: str, tmp_path: Path) -> None:
    with connect_proxy({}) as proxy:
        url = f"{scheme}://{host}/x"
        refusal = refused(url, tmp_path, proxy=parse(proxy.url), allow_private=False)
        assert refusal.code == "ADDITIONAL_FILES_PRIVATE"
        assert proxy.asked == []


@pytest.mark.parametrize("host", ["8.8.8.8", "134744072", "files.example.org", "a" * 70])
def test_a_proxy_is_asked_for_public_places(host: str, tmp_path: Path) -> None:
    with connect_proxy({}) as proxy:
        refusal = refused(
            f"https://{host}/x", tmp_path, proxy=parse(proxy.url), allow_private=False
        )
        assert refusal.code == "ADDITIONAL_FILES_UNAVAILABLE"
        assert f"CONNECT {host}:443" in proxy.asked


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_is_not_asked_for_a_name_of_a_private_place(scheme: str, tmp_path: Path) -> None:
    """This machine's own name, which is no literal and resolves where its hosts file says."""
    with connect_proxy({}) as proxy:
        url = f"{scheme}://{socket.gethostname()}/x"
        refusal = refused(url, tmp_path, proxy=parse(proxy.url), allow_private=False)
        assert refusal.code == "ADDITIONAL_FILES_PRIVATE"
        assert f"{socket.gethostname()} (" in refusal.message
        assert proxy.asked == []
        assert refused(url, tmp_path, proxy=parse(proxy.url)).code.endswith("UNAVAILABLE")
        assert proxy.asked


def test_one_private_address_of_a_name_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agent.addresses.resolved", lambda *_: ["8.8.8.8", "10.1.2.3"])
    with connect_proxy({}) as proxy:
        given = parse(proxy.url)
        url = "https://files.example.org/x"
        assert (
            "(8.8.8.8, 10.1.2.3)"
            in refused(url, tmp_path, proxy=given, allow_private=False).message
        )


def test_a_dns_without_an_answer_leaves_it_to_the_proxy(
    source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr("agent.addresses.DNS_S", 0.05)
    monkeypatch.setattr("agent.addresses.resolved", lambda *_: hangs.wait(20) and [])
    with connect_proxy({"files.example.org:80": ("127.0.0.1", source.port)}) as proxy:
        given = parse(proxy.url)
        got = fetched("http://files.example.org/x", tmp_path, proxy=given, allow_private=False)
    hangs.set()
    assert got == CONTENT


def test_a_redirect_does_not_lead_inside(source: Source, tmp_path: Path) -> None:
    with connect_proxy({"files.example.org:80": ("127.0.0.1", source.port)}) as proxy:
        url, via = "http://files.example.org/x", parse(proxy.url)
        assert fetched(url, tmp_path, proxy=via, allow_private=False) == CONTENT
        source.location = "http://169.254.169.254/latest"
        assert refused(url, tmp_path, proxy=via, allow_private=False).code == (
            "ADDITIONAL_FILES_PRIVATE"
        )
        source.location = "file:///etc/passwd"
        assert "got file" in refused(url, tmp_path, proxy=via).message
        source.location = url
        assert "redirects" in refused(url, tmp_path, proxy=via).message


def test_a_broken_transfer_goes_on(source: Source, tmp_path: Path) -> None:
    source.breaks = [100_000, 1, 200_000]
    assert fetched(f"http://127.0.0.1:{source.port}/x", tmp_path) == CONTENT
    assert source.ranges == ["", "bytes=100000-", "bytes=100001-", "bytes=300001-"]


def test_what_changed_meanwhile_is_fetched_from_its_start(source: Source, tmp_path: Path) -> None:
    source.breaks = [100_000]

    class Changed(list[str]):
        def append(self, asked: str) -> None:
            super().append(asked)
            source.etag = f'"{len(self)}"'

    source.ranges = Changed()
    assert fetched(f"http://127.0.0.1:{source.port}/x", tmp_path) == CONTENT
    assert source.ranges == ["", "bytes=100000-"]


def test_without_a_validator_it_begins_again_and_not_for_ever(
    source: Source, tmp_path: Path
) -> None:
    source.etag, source.breaks = "", [1000] * 100
    refusal = refused(f"http://127.0.0.1:{source.port}/x", tmp_path)
    assert refusal.code == "ADDITIONAL_FILES_UNAVAILABLE"
    assert "bytes too early" in refusal.message
    assert source.ranges == [""] * (agent.fetching.MOST_TRIES + 1)


def test_https_by_a_ca_of_the_sites_own(tmp_path: Path) -> None:
    tls, ca_file = certified(tmp_path, "localhost")
    with serving(tls) as source:
        url = f"https://localhost:{source.port}/x"
        assert "certificate that is not trusted" in refused(url, tmp_path).message
        assert fetched(url, tmp_path, ca_file=ca_file) == CONTENT
        wrong = refused(f"https://127.0.0.1:{source.port}/x", tmp_path, ca_file=ca_file)
        assert "IP address mismatch" in wrong.message


def test_through_a_proxy_that_wants_a_user(source: Source, tmp_path: Path) -> None:
    tls, ca_file = certified(tmp_path, "files.example.org")
    with serving(tls) as secure:
        hosts = {
            "files.example.org:80": ("127.0.0.1", source.port),
            "files.example.org:443": ("127.0.0.1", secure.port),
        }
        with connect_proxy(hosts, "north:pass@word") as proxy:
            given = parse(proxy.url)
            for url in ("https://files.example.org/x", "http://files.example.org/x"):
                assert fetched(url, tmp_path, proxy=given, ca_file=ca_file) == CONTENT
                nobody = Proxy(given.host, given.port)
                refusal = refused(url, tmp_path, proxy=nobody, ca_file=ca_file)
                assert "407" in refusal.message
                assert refusal.code == "ADDITIONAL_FILES_UNAVAILABLE"
            assert proxy.asked[0] == "CONNECT files.example.org:443"
