"""A CA for one test: a root, a server named as the coordinator, and persons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from housecall.identity import Identity, private_pem


class TestAuthority:
    """Certificates are valid from `age` ago until a day after that."""

    __test__ = False

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test root")])
        self.root = self._sign(self._name, self._key.public_key(), timedelta(0), ca=True)

    @property
    def root_pem(self) -> bytes:
        return _pem(self.root)

    @property
    def root_der(self) -> bytes:
        return self.root.public_bytes(serialization.Encoding.DER)

    def server(self) -> tuple[bytes, bytes]:
        """(key, certificate) in PEM."""
        return self.leaf(x509.DNSName("coordinator.housecall"))

    def person(self, name: str, address: str, key: str, *, age: timedelta) -> Identity:
        tls_key, chain = self.leaf(x509.UniformResourceIdentifier(name), age)
        return Identity(
            name=name,
            address=address,
            verifier_key=key,
            root_pem=self.root_pem,
            chain_pem=chain,
            tls_key_pem=tls_key,
            signing_key=Ed25519PrivateKey.generate(),
        )

    def leaf(
        self, san: x509.GeneralName, age: timedelta = timedelta(hours=1)
    ) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([]), key.public_key(), age, san=san)
        return private_pem(key), _pem(certificate)

    def certify(self, csr: bytes) -> bytes:
        """A certificate in PEM for whatever a PKCS #10 request asks."""
        request = x509.load_der_x509_csr(csr)
        wanted = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return _pem(self._sign(x509.Name([]), key, timedelta(0), san=next(iter(wanted))))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        age: timedelta,
        *,
        san: x509.GeneralName | None = None,
        ca: bool = False,
    ) -> x509.Certificate:
        start = datetime.now(UTC) - age - timedelta(minutes=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if san is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([san]), critical=True)
        return builder.sign(self._key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
