"""The certificate authority: a root, an issuing CA, and short-lived leaves for SPIFFE names.

Keys are made by `create`, or adopted (`adoption.py`), and stay in the CA folder, 0600: issuing.key,
issuing.pem (the issuing CA, then what stands between it and the root) and root.pem. Who may have a
certificate is decided by the ledger's rules; this room only signs what it is told to.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from housecall.credentials import SERVER_NAME
from housecall.errors import Kind, Refusal
from housecall.identity import new_tls_key, private_pem, public_key_digest, write_private

BACKDATE = timedelta(days=30)
"""How long before it was made a CA is valid."""
LEAST_BACKDATE = timedelta(minutes=5)
"""The same of a leaf that has hardly any life ahead of it. All others are valid as long before they
were made as after: the clock that makes them, and the one that checks them, may be off by less."""
ROOT_LIFE = timedelta(days=3650)
ISSUING_LIFE = timedelta(days=1825)
LEAF_LIFE = {"site": timedelta(days=30), "person": timedelta(days=30)}
SERVER_LIFE = timedelta(days=30)


class CertificateAuthority:
    """Opened from the folder that `create` filled."""

    def __init__(self, folder: Path) -> None:
        key = serialization.load_pem_private_key((folder / "issuing.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        self._key = key
        self.root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
        self._chain = x509.load_pem_x509_certificates((folder / "issuing.pem").read_bytes())
        self.issuing = self._chain[0]
        self.server_expires_at: datetime | None = None

    @staticmethod
    def create(folder: Path, trust_domain: str) -> CertificateAuthority:
        """A new root and issuing CA; the root key is only needed to make another issuing CA."""
        root_key, issuing_key = new_tls_key(), new_tls_key()
        root_name = _ca_name(f"Housecall root of {trust_domain}")
        root = _ca(root_name, root_name, root_key, root_key, ROOT_LIFE, 1)
        issuing_name = _ca_name(f"Housecall issuing CA of {trust_domain}")
        issuing = _ca(issuing_name, root_name, issuing_key, root_key, ISSUING_LIFE, 0)
        write_private(folder / "root.key", private_pem(root_key))
        write_private(folder / "issuing.key", private_pem(issuing_key))
        write_private(folder / "root.pem", _pem(root))
        write_private(folder / "issuing.pem", _pem(issuing))
        return CertificateAuthority(folder)

    @property
    def fits(self) -> bool:
        """Whether the issuing certificate is of the issuing key."""
        return self.issuing.public_key() == self._key.public_key()

    @property
    def root_der(self) -> bytes:
        return self.root.public_bytes(serialization.Encoding.DER)

    @property
    def root_pem(self) -> bytes:
        return _pem(self.root)

    def chain_der(self, leaf: x509.Certificate) -> list[bytes]:
        """The leaf, the issuing CA, and what stands between that and the root."""
        return [each.public_bytes(serialization.Encoding.DER) for each in (leaf, *self._chain)]

    def certify(self, csr: bytes, name: str, not_after: datetime) -> x509.Certificate:
        """A client certificate for the SPIFFE id `name` and the key of a DER `csr`."""
        request = read_csr(csr)
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        san = [x509.UniformResourceIdentifier(name)]
        return self._leaf(key, san, ExtendedKeyUsageOID.CLIENT_AUTH, not_after)

    def chain_pem(self, leaf: x509.Certificate) -> str:
        return b"".join(_pem(each) for each in (leaf, *self._chain)).decode()

    def server_pair(self, trust_domain: str) -> tuple[bytes, bytes]:
        """(key, chain) in PEM for the coordinator itself, made anew."""
        key = new_tls_key()
        san = [
            x509.DNSName(SERVER_NAME),
            x509.UniformResourceIdentifier(f"spiffe://{trust_domain}/coordinator"),
        ]
        self.server_expires_at = not_after = datetime.now(UTC) + SERVER_LIFE
        leaf = self._leaf(key.public_key(), san, ExtendedKeyUsageOID.SERVER_AUTH, not_after)
        return private_pem(key), self.chain_pem(leaf).encode()

    def _leaf(
        self,
        key: ec.EllipticCurvePublicKey,
        san: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        not_after: datetime,
    ) -> x509.Certificate:
        now, end = datetime.now(UTC), min(not_after, self.issuing.not_valid_after_utc)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.issuing.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - max(end - now, LEAST_BACKDATE))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(san), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """The one that the issuing CA has, however it was made; else that of RFC 5280, 4.2.1.2."""
        try:
            found = self.issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def read_csr(csr: bytes) -> x509.CertificateSigningRequest:
    """A DER CSR whose signature holds and whose key is P-256; refuses all else."""
    try:
        request = x509.load_der_x509_csr(csr)
        if not request.is_signature_valid:
            raise ValueError("its signature does not hold")
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise ValueError("its key is of another kind")
    except ValueError as error:
        raise Refusal(
            Kind.INVALID, "CSR_INVALID", f"expected a PKCS #10 request for a P-256 key: {error}"
        ) from error
    return request


def csr_key_digest(csr: bytes) -> str:
    key = read_csr(csr).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return public_key_digest(key)


def _ca_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _ca(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    life: timedelta,
    path_length: int,
) -> x509.Certificate:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(True, path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
