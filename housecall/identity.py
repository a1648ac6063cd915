"""Who somebody is: names, keys, certificates, and the folder that keeps them.

Names are SPIFFE ids in the certificate's URI SAN. A participant has two keys that never leave its
identity folder: ECDSA P-256 for TLS and Ed25519 for signing statements. Certificates are short
lived; renew when less than a third of the life is left. Files are 0600 in a 0700 folder.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from housecall.credentials import Credentials, damaged, load, missing
from housecall.errors import Kind, Refusal
from housecall.files import sync
from housecall.proxy import Proxy
from housecall.statement import digest

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TRUST_DOMAIN = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_ID = re.compile(r"spiffe://([a-z0-9.-]+)/(site|person|join|coordinator)(?:/([a-z0-9-]+))?")


def spiffe_id(trust_domain: str, kind: str, name: str) -> str:
    """`spiffe://<trust-domain>/<site|person|join>/<name>`."""
    if not _NAME.fullmatch(name):
        raise Refusal(
            Kind.INVALID,
            "NAME_INVALID",
            f"name {name!r}: expected lower-case letters, digits and hyphens, at most 63",
        )
    return f"spiffe://{trust_domain}/{kind}/{name}"


def check_trust_domain(trust_domain: str) -> None:
    if not _TRUST_DOMAIN.fullmatch(trust_domain):
        raise Refusal(
            Kind.INVALID,
            "NAME_INVALID",
            f"trust domain {trust_domain!r}: expected lower-case letters, digits, dots and hyphens",
        )


def split_id(name: str) -> tuple[str, str, str]:
    """(trust domain, kind, short name) of a SPIFFE id; short name is "" for the coordinator."""
    match = _ID.fullmatch(name)
    if not match:
        raise Refusal(
            Kind.INVALID,
            "NAME_INVALID",
            f"name {name!r}: expected spiffe://<trust-domain>/site|person/<name>",
        )
    return match[1], match[2], match[3] or ""


def short_name(name: str) -> str:
    return split_id(name)[2] or split_id(name)[1]


def new_tls_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make_csr(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """PKCS #10 in DER, asking for the SPIFFE id `name`."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)])
    request = builder.add_extension(san, critical=True).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def public_key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """Digest of a TLS key's SubjectPublicKeyInfo."""
    return digest(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def certificate_name(certificate: x509.Certificate) -> str:
    """The one SPIFFE id in a certificate's URI SAN."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uri


def renew_after(certificate: x509.Certificate) -> datetime:
    """When two thirds of its life are over (UTC). Its validity began as long before its making."""
    valid = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - valid / 2 / 3


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_private(path: Path, data: bytes) -> None:
    """Write a file 0600 so that it is there complete or not at all, after a power cut as well."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)  # never one that somebody else made or holds open
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    sync(path.parent)


@dataclass(frozen=True)
class Identity(Credentials):
    """An enrolled participant as its folder holds it."""

    signing_key: Ed25519PrivateKey

    @property
    def short_name(self) -> str:
        return short_name(self.name)

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.chain_pem)[0]

    def renewal_due(self, now: datetime) -> bool:
        return now >= renew_after(self.certificate)

    def save(self, folder: Path) -> None:
        """Complete or not there: identity.json, which makes a folder an identity, comes last."""
        write_private(folder / "root.pem", self.root_pem)
        write_private(folder / "tls.key", self.tls_key_pem)
        write_private(folder / "signing.key", private_pem(self.signing_key))
        write_private(folder / "chain.pem", self.chain_pem)
        facts = {"name": self.name, "address": self.address, "verifier_key": self.verifier_key}
        write_private(folder / "identity.json", json.dumps(facts, indent=1).encode())

    @staticmethod
    def load(folder: Path, proxy: Proxy | None = None) -> Identity:
        """As `housecall.credentials.load`, with the signing key."""
        credentials = load(folder, proxy)
        try:
            pem = (folder / "signing.key").read_bytes()
            signing_key = serialization.load_pem_private_key(pem, password=None)
        except FileNotFoundError as error:
            raise damaged(folder, missing(error)) from None
        except ValueError as error:
            raise damaged(folder, ValueError("signing.key holds no key")) from error
        if not isinstance(signing_key, Ed25519PrivateKey):
            raise damaged(folder, ValueError("signing.key is not an Ed25519 key"))
        for name in ("chain.pem", "root.pem"):
            try:
                x509.load_pem_x509_certificates((folder / name).read_bytes())
            except ValueError as error:
                raise damaged(folder, ValueError(f"{name} holds no certificates")) from error
        return Identity(**vars(credentials), signing_key=signing_key)
