"""A federation under the root of an organisation's own: founded, enrolled, connected, renewed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agent.server import Agent
from coordinator.__main__ import cli
from coordinator.adoption import Adopted, adopt, adopted_of
from coordinator.authority import CertificateAuthority
from housecall import client, tokens
from housecall.errors import Refusal
from housecall.identity import make_csr, new_tls_key, private_pem
from housecall.v1 import registry_pb2
from housecall.v1 import statements_pb2 as pb
from tests.agent import site
from tests.agent.site import Bench, wait_for
from tests.coordinator.world import register_model, world

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Issuer:
    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def issuer(
    name: str,
    above: Issuer | None = None,
    *,
    key: Key | None = None,
    days: int = 1000,
    is_ca: bool = True,
    path_length: int | None = None,
) -> Issuer:
    """With a key identifier that is no digest of the key, as some CAs make them."""
    key = key or ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.certificate.subject if above else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(is_ca, path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(name.encode()), critical=False)
    )
    return Issuer(builder.sign(above.key if above else key, hashes.SHA256()), key)


@dataclass(frozen=True)
class Organisation:
    root: Issuer
    middle: Issuer
    issuing: Issuer

    def files(self, folder: Path, *, with_root: bool = True) -> Adopted:
        folder.mkdir(exist_ok=True)
        chain = [self.issuing, self.middle, *(() if with_root else (self.root,))]
        (folder / "ca.pem").write_bytes(b"".join(each.pem for each in chain))
        (folder / "ca.key").write_bytes(private_pem(self.issuing.key))
        (folder / "root.pem").write_bytes(self.root.pem)
        root = folder / "root.pem" if with_root else None
        return Adopted(folder / "ca.pem", folder / "ca.key", root)


def organisation(key: Key | None = None) -> Organisation:
    root = issuer("Hospital root", key=rsa.generate_private_key(65537, 2048))
    middle = issuer("Hospital middle", root)
    return Organisation(root, middle, issuer("Hospital issuing", middle, key=key, path_length=0))


@pytest.mark.parametrize("kind", ["elliptic", "rsa"])
def test_everybody_joins_under_the_organisations_root(tmp_path: Path, kind: str) -> None:
    own = organisation(rsa.generate_private_key(65537, 2048) if kind == "rsa" else None)
    with world(tmp_path, adopted=own.files(tmp_path / "files")) as made:
        token = tokens.read(made.token("dora", pb.ROLE_PERSON))
        assert token.root_certificate == own.root.certificate.public_bytes(
            serialization.Encoding.DER
        )
        assert len(token.certificate_chain) == 3
        mona = made.join("mona", pb.ROLE_PERSON)
        assert mona.identity.root_pem == own.root.pem
        assert register_model(mona, "model").id == 1
        renewed = client.renew(mona.identity, tmp_path / "identities" / "mona")
        with client.connect(renewed) as channel, renewed.refusals():
            made.parties["mona"] = dataclasses.replace(mona, channel=channel)
            request = registry_pb2.GetCallerRequest()
            assert made.parties["mona"].registry.GetCaller(request).name == mona.name
        made.parties["mona"] = mona
        bench = Bench(made, mona, mona)
        settings = site.enrolled(bench, tmp_path)
        with Agent(settings, lambda _: bench.engine) as agent:
            wait_for(lambda: agent.link.state.connected)


def test_a_sibling_ca_lets_nobody_in(tmp_path: Path) -> None:
    """The organisation's other CAs lead to the same root: their certificates are of keys that
    nobody enrolled."""
    own = organisation()
    with world(tmp_path, adopted=own.files(tmp_path / "files")) as made:
        mona = made.join("mona", pb.ROLE_PERSON)
        sibling = dataclasses.replace(own, issuing=issuer("Hospital other", own.middle))
        other = adopt(tmp_path / "other", "test", sibling.files(tmp_path / "siblings"))
        for name in (mona.name, "spiffe://test/join/0123456789abcdef"):
            key = new_tls_key()
            leaf = other.certify(make_csr(key, name), name, datetime.now(UTC) + timedelta(days=1))
            forged = dataclasses.replace(
                mona.identity,
                tls_key_pem=private_pem(key),
                chain_pem=other.chain_pem(leaf).encode(),
            )
            with pytest.raises(Refusal) as caught:
                client.renew(forged, tmp_path / "forged")
            assert caught.value.code == "CERTIFICATE_FOREIGN"


def test_init_takes_it_and_pins_the_root(tmp_path: Path) -> None:
    own = organisation()
    files = own.files(tmp_path / "files", with_root=False)
    words = ["init", "--trust-domain", "test", "--address", "here:1", "--operator", "olga"]
    state = ["--state-dir", str(tmp_path / "state")]
    taken = ["--ca-certificate", str(files.certificate), "--ca-key", str(files.key)]
    done = CliRunner().invoke(cli, [*words, *state, *taken], catch_exceptions=False)
    token = tokens.read(done.stdout.splitlines()[0])
    assert x509.load_der_x509_certificate(token.root_certificate) == own.root.certificate
    folder = tmp_path / "state" / "ca"
    assert CertificateAuthority(folder).issuing == own.issuing.certificate
    assert not (folder / "root.key").exists()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    with pytest.raises(Refusal, match="together"):
        adopted_of(files.certificate, None, None)


def spoilt(own: Organisation, what: str) -> Organisation:
    return dataclasses.replace(
        own,
        issuing={
            "short": lambda: issuer("Short", own.middle, days=30),
            "leaf": lambda: issuer("Leaf", own.middle, is_ca=False),
            "elsewhere": lambda: issuer("Elsewhere", issuer("Another root")),
            "weak": lambda: issuer("Weak", own.middle, key=rsa.generate_private_key(65537, 1024)),
        }[what](),
    )


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("short", "at least 90 days"),
        ("leaf", "do not hold in a handshake"),
        ("elsewhere", "do not hold in a handshake"),
        ("weak", "2048 bits"),
    ],
)
def test_a_ca_that_cannot_is_refused_before_anything_is_kept(
    tmp_path: Path, what: str, words: str
) -> None:
    files = spoilt(organisation(), what).files(tmp_path / "files")
    with pytest.raises(Refusal, match=words) as caught:
        adopt(tmp_path / "ca", "test", files)
    assert caught.value.code == "CA_INVALID"
    assert not (tmp_path / "ca").exists()


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    own = organisation()
    files = own.files(tmp_path / "files")
    other = tmp_path / "other.key"
    other.write_bytes(private_pem(new_tls_key()))
    locked = tmp_path / "locked.key"
    secret = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(
        own.issuing.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret
        )
    )
    for changed, words in (
        ({"key": other}, "another one's"),
        ({"key": locked}, "without a password"),
        ({"key": tmp_path / "none"}, "none: expected a private key"),
        ({"certificate": other}, "other.key: expected certificates"),
        ({"root": None}, "name the root by --ca-root"),
    ):
        with pytest.raises(Refusal, match=words):
            adopt(tmp_path / "ca", "test", dataclasses.replace(files, **changed))
