"""A device's own key: made on the device, P-256; what it signs, and how that is verified.

The private key never leaves the device. It signs three things, each under a purpose of its own, so that a
signature for one is none for another: final reports, words of health, and the request for the next
certificate. What is signed is the request's body, byte for byte as it goes onto the line: nobody serialises
anything twice. Public keys are kept as hex of the uncompressed point (65 bytes).
"""

import base64
import binascii
from enum import StrEnum
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from skylift.core.errors import Rejected, invalid

MAX_REQUEST = 4096  # characters of a certificate request; ours have 500
MAX_SIGNATURE = 128  # characters: 72 bytes in base64 are 96


class Purpose(StrEnum):
    """What a signature is for."""

    REPORT = "report"
    HEALTH = "health"
    RENEWAL = "renewal"


def _said(purpose: Purpose, payload: bytes) -> bytes:
    return b"skylift " + purpose.value.encode() + b" v1\n" + payload


# --- on the device ----------------------------------------------------------------------------------


def new_key() -> bytes:
    """A new private key, PEM."""
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@lru_cache(maxsize=4)
def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise invalid("device key", "the file", "is no P-256 key", code="bad_key")
    return key


def request(pem: bytes, device_id: str) -> str:
    """A certificate request for this key, PEM; its subject is the device's id."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(_private(pem), SHA256())
    return made.public_bytes(Encoding.PEM).decode()


def sign(pem: bytes, purpose: Purpose, payload: bytes) -> str:
    """The signature of these bytes, base64."""
    made = _private(pem).sign(_said(purpose, payload), ec.ECDSA(SHA256(), deterministic_signing=True))
    return base64.b64encode(made).decode()


def public_of(pem: bytes) -> str:
    """The public part, as it is kept."""
    return point(_private(pem).public_key())


def certifies(certificate: str, pem: bytes, device_id: str) -> bool:
    """Whether this certificate (PEM) is for this key, and for this device."""
    try:
        found = x509.load_pem_x509_certificate(certificate.encode("ascii"))
        key, names = found.public_key(), [str(name.value) for name in found.subject]
    except Exception:  # noqa: BLE001 - `cryptography` has no one class for what is no certificate
        return False
    own = isinstance(key, ec.EllipticCurvePublicKey) and point(key) == public_of(pem)
    return own and names == [device_id]


# --- on the server ----------------------------------------------------------------------------------


def point(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex()


@lru_cache(maxsize=8192)  # some 3 MB; a device that reports usually reports again
def public_key(public: str) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes.fromhex(public))


def verifies(public: str, purpose: Purpose, payload: bytes, signature: str) -> bool:
    """Whether this key signed these bytes for this purpose."""
    if len(signature) > MAX_SIGNATURE:
        return False
    try:
        raw = base64.b64decode(signature, validate=True)
        public_key(public).verify(raw, _said(purpose, payload), ec.ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def read_request(field: str, pem: str, device_id: str) -> str:
    """The public key that this request is for. Raises `Rejected` unless it is a P-256 key's own request, for
    this device."""
    if len(pem) > MAX_REQUEST:
        raise invalid(field, f"{len(pem)} characters", f"at most {MAX_REQUEST}", code="bad_request")
    try:
        asked = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = asked.public_key()
        signed = asked.is_signature_valid
        names = [str(name.value) for name in asked.subject]
    except Exception as e:  # `cryptography` has no one class for what is no request
        raise invalid(field, pem[:40], "is no certificate request in PEM", code="bad_request") from e
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise invalid(field, type(key).__name__, "a P-256 key", code="bad_request")
    if not signed:
        raise invalid(field, "its signature", "is not its own key's", code="bad_request")
    if names != [device_id]:
        rule = f"its subject is the device's id, CN={device_id}, and nothing else"
        raise Rejected("bad_request", f"{field} is for {names}: {rule}", field=field, rule=rule)
    return point(key)
