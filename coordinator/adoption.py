"""An issuing CA of the organisation's own, in place of the one that `init` makes.

It is taken only where everything that is built on it will hold, which a handshake proves before
anything is kept: an issuing CA with its key, and the chain to a root that everyone will pin. The
root's key is not needed, and stays where it is.
"""

from __future__ import annotations

import contextlib
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from coordinator.authority import LEAF_LIFE, CertificateAuthority
from housecall.credentials import SERVER_NAME
from housecall.errors import Kind, Refusal
from housecall.identity import make_csr, new_tls_key, private_pem, spiffe_id, write_private

LEAST_LIFE = timedelta(days=90)
_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for."""
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Adopted:
    """The files of `--ca-certificate` (the issuing CA, then what stands between it and the root),
    `--ca-key` and `--ca-root`; without a root the last certificate of the chain is it."""

    certificate: Path
    key: Path
    root: Path | None = None


def adopted_of(certificate: Path | None, key: Path | None, root: Path | None) -> Adopted | None:
    """What the options name; None where they name nothing."""
    if certificate is not None and key is not None:
        return Adopted(certificate, key, root)
    if certificate or key or root:
        raise _invalid("expected --ca-certificate and --ca-key together")
    return None


def adopt(folder: Path, trust_domain: str, adopted: Adopted) -> CertificateAuthority:
    """Fill the CA folder from these files. Raises Refusal CA_INVALID."""
    key = _key(adopted.key)
    chain = _certificates(adopted.certificate)
    root = _certificates(adopted.root)[-1] if adopted.root else chain[-1]
    _check(chain[0], key, root)
    with tempfile.TemporaryDirectory() as trial:
        _fill(Path(trial), chain, key, root)
        prove(CertificateAuthority(Path(trial)), trust_domain)
    _fill(folder, chain, key, root)
    return CertificateAuthority(folder)


def _fill(
    folder: Path,
    chain: list[x509.Certificate],
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    root: x509.Certificate,
) -> None:
    sent = [each for each in chain if each != root] or chain
    write_private(folder / "issuing.key", private_pem(key))
    write_private(folder / "issuing.pem", b"".join(each.public_bytes(_PEM) for each in sent))
    write_private(folder / "root.pem", root.public_bytes(_PEM))


def _key(path: Path) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except TypeError:
        raise _invalid(f"{path}: expected a key without a password, got an encrypted one") from None
    except (OSError, ValueError) as error:
        raise _invalid(f"{path}: expected a private key in PEM: {error}") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key
    raise _invalid(f"{path}: expected an RSA key of 2048 bits or more, or an elliptic curve's")


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _invalid(f"{path}: expected certificates in PEM: {error}") from error


def _check(
    issuing: x509.Certificate,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    root: x509.Certificate,
) -> None:
    name = issuing.subject.rfc4514_string()
    if issuing.public_key() != key.public_key():
        raise _invalid(f"{name}: expected the certificate of the given key, got another one's")
    if root.issuer != root.subject:
        raise _invalid(
            f"{root.subject.rfc4514_string()}: expected a root, which issued itself; name the root "
            "by --ca-root"
        )
    for certificate in (issuing, root):
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        if left < LEAST_LIFE:
            raise _invalid(
                f"{certificate.subject.rfc4514_string()}: expected at least {LEAST_LIFE.days} days "
                f"until it expires, got {left.days}"
            )


def prove(authority: CertificateAuthority, trust_domain: str, *, now: bool = True) -> None:
    """A handshake as a site will make it. What a certificate lacks OpenSSL knows best. Raises
    Refusal CA_INVALID; unless `now` counts, not for what expired: the clock may be what is
    wrong."""
    if authority.issuing.not_valid_after_utc <= datetime.now(UTC):
        if now:
            raise _invalid(f"it expired on {authority.issuing.not_valid_after_utc:%Y-%m-%d}")
        return
    with tempfile.TemporaryDirectory() as folder:
        _shake_hands(authority, trust_domain, Path(folder), 0 if now else _NO_CHECK_TIME)


def _shake_hands(
    authority: CertificateAuthority, trust_domain: str, folder: Path, flags: int
) -> None:
    key, chain = authority.server_pair(trust_domain)
    site_key, name = new_tls_key(), spiffe_id(trust_domain, "site", "trial")
    not_after = datetime.now(UTC) + LEAF_LIFE["site"]
    leaf = authority.certify(make_csr(site_key, name), name, not_after)
    server = _context(ssl.PROTOCOL_TLS_SERVER, authority, folder, (key, chain), flags)
    pair = (private_pem(site_key), authority.chain_pem(leaf).encode())
    client = _context(ssl.PROTOCOL_TLS_CLIENT, authority, folder, pair, flags)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=SERVER_NAME),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    try:
        for end in ends * 2:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
        ends[1].do_handshake()  # it has seen all of it, or raises
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason
        raise _invalid(
            f"certificates of this CA do not hold in a handshake: {reason}; it must be allowed to "
            "sign certificates for clients and servers, and lead to the root"
        ) from error


def _context(
    protocol: int,
    authority: CertificateAuthority,
    folder: Path,
    pair: tuple[bytes, bytes],
    flags: int,
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= flags
    context.load_verify_locations(cadata=authority.root_pem.decode())
    write_private(folder / "trial.key", pair[0])
    write_private(folder / "trial.pem", pair[1])
    context.load_cert_chain(folder / "trial.pem", folder / "trial.key")
    return context


def _invalid(message: str) -> Refusal:
    return Refusal(Kind.INVALID, "CA_INVALID", f"CA: {message}")
