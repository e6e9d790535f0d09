"""Certificates for tests: an authority, and what it issues."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Makes certificates; each file is beside its key."""

    def __init__(self, place: Path, name: str) -> None:
        self.place, self.name = place, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._made(name, self.key, True)
        self.file = place / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _made(self, name: str, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        made = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        )
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(authority, None), critical=True)
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return made.sign(self.key, hashes.SHA256())

    def issue(self, name: str) -> tuple[Path, Path, str]:
        """Certificate, key, and the certificate's fingerprint."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._made(name, key, False)
        files = self.place / f"{self.name}-{name}.crt", self.place / f"{self.name}-{name}.key"
        files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return *files, hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()
