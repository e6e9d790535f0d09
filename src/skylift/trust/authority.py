"""The server's own certificate authority for devices: small, online, and able to do little harm.

It says which key is which device's, for a year at a time, and takes that back in a revocation list. It
vouches for no code: whoever steals it can pose as devices, not update them.

A folder holds `device-ca-1.pem` (a private key, encrypted) and `device-ca-1.crt`
(its certificate), and so on: the highest number issues, all that are there are trusted. A rotation adds a
number; the old one stays for as long as certificates of it live, and is retired by removing its files.
Several servers share the folder, so it is read again whenever it is asked.
"""

import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from skylift.core.errors import Kind, Rejected, invalid
from skylift.trust import identity, keys

LIFE = timedelta(days=3652)  # of an authority
DEVICE_LIFE = timedelta(days=365)
LIST_LIFE = timedelta(days=1)
CLOCKS_DIFFER = timedelta(hours=1)  # a device's may be behind
_KEY = re.compile(r"device-ca-([1-9][0-9]{0,5})\.pem", re.ASCII)


@dataclass(frozen=True, slots=True)
class Issued:
    """A device's new certificate. `serial` and `fingerprint` (SHA-256 of the DER) in hex."""

    serial: str
    authority: int
    fingerprint: str
    pem: str
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Revoked:
    """One line of a revocation list."""

    serial: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Authority:
    """One of them, as people see it."""

    number: int
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def expires_at(self) -> datetime:
        return self.certificate.not_valid_after_utc


# Why a certificate is taken back, in our words and in X.509's.
REASONS = {
    "decommissioned": x509.ReasonFlags.cessation_of_operation,
    "stolen": x509.ReasonFlags.key_compromise,
    "superseded": x509.ReasonFlags.superseded,
}


class Authorities:
    """The folder."""

    def __init__(self, folder: Path, passphrase: str) -> None:
        if not passphrase:
            raise AssertionError("the keys of an authority never lie in clear")
        self._folder = folder
        self._passphrase = passphrase.encode()

    @classmethod
    def open(cls, folder: Path, passphrase: str, now: datetime, former: str = "") -> "Authorities":
        """Makes the first one where there is none; encrypts what lies there in clear, or is locked with the
        former passphrase."""
        made = cls(folder, passphrase)
        if not made._numbers():
            made.make(1, now)
        made._encrypt(former.encode())
        made._signer(made.newest)  # a wrong passphrase is said at the start
        return made

    def all(self) -> list[Authority]:
        """Those that are trusted, oldest first."""
        return [self._read(number) for number in self._numbers()]

    def bundle(self) -> str:
        """Their certificates, PEM: what a proxy verifies devices against."""
        return "".join(one.pem for one in self.all())

    @property
    def newest(self) -> int:
        """The number of the one that issues."""
        return self._numbers()[-1]

    def check_idle(self, number: int) -> None:
        """Raises `Rejected` for the one that issues, and for one that is not there."""
        if number == self.newest:
            raise Rejected(
                "authority_in_use",
                f"authority is {number}: it issues; rotate first",
                kind=Kind.CONFLICT,
                field="authority",
                value=number,
                rule="not the newest",
            )
        if number not in self._numbers():
            raise Rejected(
                "unknown_authority",
                f"authority is {number}: there is none of that number",
                kind=Kind.NOT_FOUND,
                field="authority",
                value=number,
                rule="names an authority",
            )

    def retire(self, number: int) -> None:
        """Trusted no more."""
        self.check_idle(number)
        for path in (self._key(number), self._certificate(number)):
            path.unlink(missing_ok=True)

    def issue(self, device_id: str, public: str, now: datetime) -> Issued:
        """A certificate that says: this key is this device's, for a year."""
        number = self.newest
        issuer = self._read(number).certificate
        serial = x509.random_serial_number()
        start = now.replace(microsecond=0)
        end = min(start + DEVICE_LIFE, issuer.not_valid_after_utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(_name(device_id))
            .issuer_name(issuer.subject)
            .public_key(identity.public_key(public))
            .serial_number(serial)
            .not_valid_before(start - CLOCKS_DIFFER)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_data=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(_from(issuer), critical=False)
            .sign(self._signer(number).private, SHA256())
        )
        pem = made.public_bytes(Encoding.PEM).decode()
        return Issued(f"{serial:x}", number, made.fingerprint(SHA256()).hex(), pem, start, end)

    def revocations(self, revoked: dict[int, list[Revoked]], number: int, now: datetime) -> str:
        """Every authority's list, PEM, one after the other; `number` grows with every one that says more."""
        return "".join(
            self._list(one, revoked.get(one.number, ()), number, now.replace(microsecond=0))
            for one in self.all()
        )

    def _list(self, one: Authority, revoked: Iterable[Revoked], number: int, now: datetime) -> str:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(one.certificate.subject)
            .last_update(now)
            .next_update(now + LIST_LIFE)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(_from(one.certificate), critical=False)
        )
        for line in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(line.serial, 16))
                .revocation_date(line.at.replace(microsecond=0))
                .add_extension(x509.CRLReason(REASONS[line.reason]), critical=False)
                .build()
            )
        made = builder.sign(self._signer(one.number).private, SHA256())
        return made.public_bytes(Encoding.PEM).decode()

    # --- the folder ---------------------------------------------------------------------------------

    def _key(self, number: int) -> Path:
        return self._folder / f"device-ca-{number}.pem"

    def _certificate(self, number: int) -> Path:
        return self._folder / f"device-ca-{number}.crt"

    def _numbers(self) -> list[int]:
        found = (_KEY.fullmatch(path.name) for path in self._folder.glob("device-ca-*.pem"))
        return sorted(int(match[1]) for match in found if match and self._certificate(int(match[1])).exists())

    def _read(self, number: int) -> Authority:
        try:
            return Authority(number, x509.load_pem_x509_certificate(self._certificate(number).read_bytes()))
        except (OSError, ValueError) as e:
            name = self._certificate(number).name
            raise invalid("keys_dir", name, "is no certificate", code="bad_key") from e

    def _signer(self, number: int) -> keys.KeySigner:
        return keys.load(self._key(number), self._passphrase)

    def make(self, number: int, now: datetime) -> Authority:
        """The authority of this number, if it is not there yet. The key first: without its certificate it
        does not count, and is taken up again."""
        path = self._key(number)
        if not path.exists():
            try:
                keys.save(keys.generate(), path, self._passphrase)
            except Rejected as e:
                if e.code != "key_exists":  # another server was faster
                    raise
        private = keys.load(path, self._passphrase).private
        start = now.replace(microsecond=0)
        name = _name(f"Skylift device CA {number}")
        public = private.public_key()
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - CLOCKS_DIFFER)
            .not_valid_after(start + LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_data=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(private, SHA256())
        )
        _place(self._certificate(number), made.public_bytes(Encoding.PEM))
        return self._read(number)

    def _encrypt(self, former: bytes) -> None:
        """The passphrase holds for the keys that are there as well."""
        for number in self._numbers():
            path = self._key(number)
            if (found := self._otherwise(path, former)) is not None:
                locked = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
                keys.save(found, locked, self._passphrase)
                os.replace(locked, path)

    def _otherwise(self, path: Path, former: bytes) -> keys.KeySigner | None:
        """The key, where it is locked otherwise than it should be, and can be opened."""
        if b"ENCRYPTED" not in path.read_bytes():
            return keys.load(path, None)
        if not former or former == self._passphrase:
            return None
        try:
            return keys.load(path, former)
        except Rejected:
            return None


def _place(path: Path, body: bytes) -> None:
    """Whole or not at all; of several servers that start together the first one's stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _from(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    key = issuer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise AssertionError("our authorities have P-256 keys")
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _usage(signs_data: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs_data,
        key_cert_sign=not signs_data,
        crl_sign=not signs_data,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
