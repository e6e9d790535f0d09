"""Devices' own keys: certificates given, renewed, taken back. What they sign: `test_signed_reports`."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from conftest import TestClock
from skylift.core.errors import Rejected
from skylift.engine.identity import PASSPHRASE
from skylift.store import facts
from skylift.store.connect import normal
from skylift.store.db import Database
from skylift.trust import identity, keys
from skylift.trust.identity import Purpose
from skylift.wiring import SkyliftServer

from .conftest import Api, start
from .keyed import Keyed, enrolled
from .test_bad_input import refused as refused_for


def refused(answer: Any, status: int, field: str = "", code: str = "") -> None:
    refused_for(answer, status, field or answer.json().get("field"), code or answer.json()["code"])


# What is about certificates and signatures, not about what the database makes of them.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

device = pytest.fixture(name="device")(enrolled)


def parsed(answer: httpx2.Response) -> x509.Certificate:
    return x509.load_pem_x509_certificate(answer.json()["certificate"].encode())


def lists(api: Api) -> dict[str, list[x509.RevokedCertificate]]:
    """The revocation lists by issuer, each verified with its authority's key."""
    authorities = x509.load_pem_x509_certificates(api.get("/api/authorities/bundle.pem", token="").content)
    pem = api.get("/api/authorities/crl.pem", token="").text
    end = "-----END X509 CRL-----\n"
    found = [x509.load_pem_x509_crl((part + end).encode()) for part in pem.split(end) if part]
    by_name = {one.subject.rfc4514_string(): one for one in authorities}
    for one in found:
        assert one.is_signature_valid(by_name[one.issuer.rfc4514_string()].public_key())  # type: ignore[arg-type]
    return {one.issuer.rfc4514_string(): list(one) for one in found}


# --- certificates -----------------------------------------------------------------------------------


@ON_SQLITE
def test_enrolling_with_a_request_gives_a_certificate_whose_subject_is_the_device(api: Api) -> None:
    device = Keyed(api)
    made = parsed(device.enroll())
    (authority,) = x509.load_pem_x509_certificates(api.get("/api/authorities/bundle.pem", token="").content)
    made.verify_directly_issued_by(authority)
    assert made.subject.rfc4514_string() == "CN=dev-1"
    assert identity.point(made.public_key()) == identity.public_of(device.key)  # type: ignore[arg-type]
    shown = device.shown["certificate"]
    assert shown["days_left"] == 365
    assert shown["fingerprint"] == made.fingerprint(SHA256()).hex()
    assert not shown["renews"]


@ON_SQLITE
def test_the_same_enrollment_again_gives_the_same_certificate(api: Api) -> None:
    device = Keyed(api)
    claim = api.post("/api/claims", {"uses": 1}).json()["claim"]
    first = device.enroll(claim).json()
    api.clock.forward(hours=3)
    again = device.enroll(claim)
    assert again.status_code == 200
    assert again.json() == first


@ON_SQLITE
def test_a_request_for_another_device_or_by_no_p256_key_is_refused_by_name(api: Api) -> None:
    device = Keyed(api)
    refused(device.enroll(csr=identity.request(device.key, "dev-2")), 422, "csr", "bad_request")
    refused(device.enroll(csr="-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"), 422, "csr", "bad_request")
    torn = identity.request(device.key, "dev-1").replace("M", "N", 1)
    refused(device.enroll(csr=torn), 422, "csr", "bad_request")
    assert api.get("/api/devices/dev-1").status_code == 404  # nothing of it was kept


@ON_SQLITE
def test_one_key_is_never_two_devices(api: Api, device: Keyed) -> None:
    other = Keyed(api, "dev-2")
    other.key = device.key
    refused(other.enroll(), 403, "csr", "key_taken")


@ON_SQLITE
def test_a_device_renews_with_the_proof_of_its_old_key_only(device: Keyed) -> None:
    new, stranger = identity.new_key(), identity.new_key()
    asked = identity.request(new, "dev-1").encode()
    refused(device.certificate(new), 403, "proof", "proof_needed")
    forged = identity.sign(stranger, Purpose.RENEWAL, asked)
    refused(device.certificate(new, forged), 403, "proof", "proof_needed")
    elsewhere = identity.sign(device.key, Purpose.REPORT, asked)
    refused(device.certificate(new, elsewhere), 403, "proof", "proof_needed")
    body = {"csr": asked.decode(), "proof": identity.sign(device.key, Purpose.RENEWAL, asked)}
    answer = device.api.post("/api/devices/dev-1/certificate", body, token=device.token)
    assert answer.status_code == 200
    assert identity.point(parsed(answer).public_key()) == identity.public_of(new)  # type: ignore[arg-type]
    # The answer got lost: the same request again, the same certificate.
    again = device.api.post("/api/devices/dev-1/certificate", body, token=device.token)
    assert again.json() == answer.json()


@ON_SQLITE
def test_a_token_only_device_gets_its_first_key_by_its_token_and_no_second(api: Api) -> None:
    device = Keyed(api)
    device.token = api.device("dev-1")
    assert device.shown["certificate"] is None
    assert device.certificate(device.key).status_code == 200
    refused(device.certificate(identity.new_key()), 403, "proof", "proof_needed")
    other = api.device("dev-2")
    answer = api.post(
        "/api/devices/dev-1/certificate", {"csr": identity.request(device.key, "dev-1")}, token=other
    )
    refused(answer, 403, "device_id", "foreign_token")


def test_the_authoritys_key_is_locked_with_what_the_database_keeps_or_the_operator_gives(
    tmp_path: Path, database_url: str, clock: TestClock
) -> None:
    path = tmp_path / "data" / "keys" / "device-ca-1.pem"

    def started(**settings: str) -> SkyliftServer:
        server = start(tmp_path, database_url, clock, **settings)
        assert server.front._context.authorities.issue("dev-1", public, clock())  # type: ignore[attr-defined]
        server.eyes.close()
        server.database.close()
        return server

    public = identity.public_of(identity.new_key())
    started()
    first = path.read_bytes()
    assert b"ENCRYPTED" in first
    with pytest.raises(Rejected, match="a passphrase is needed"):
        keys.load(path, None)
    started()
    assert path.read_bytes() == first
    key = keys.load(path, kept_passphrase(database_url)).public_key
    started(ca_passphrase="the operator's")
    assert keys.load(path, b"the operator's").public_key == key
    for wrong in ({}, {"ca_passphrase": "another"}):
        with pytest.raises(Rejected, match=r"ca_passphrase is.*device-ca-1\.pem, which another one locks"):
            start(tmp_path, database_url, clock, **wrong)
    started(ca_passphrase="the operator's")


def kept_passphrase(database_url: str) -> bytes:
    database = Database(normal(database_url))
    with database.read() as conn:
        found = facts.get(conn, PASSPHRASE)
    database.close()
    return str(found).encode()


# --- claims -----------------------------------------------------------------------------------------


def test_each_reason_why_a_claim_lets_nobody_in_is_said(api: Api) -> None:
    def claim(**more: Any) -> Any:
        return api.post("/api/claims", more).json()

    def why(token: str, name: str = "dev-9") -> str:
        answer = Keyed(api, name).enroll(token)
        refused(answer, 403, code="claim_refused")
        sentence: str = answer.json()["detail"]
        return sentence

    used = claim(uses=1)
    assert Keyed(api, "dev-1").enroll(used["claim"]).status_code == 201
    assert why(used["claim"]) == "claim: is used up"
    assert why("clm_unknown") == "claim: there is no such claim"
    typed = claim(device_type="gateway")
    assert why(typed["claim"]) == "device_type: the claim is for gateway"
    taken_back = claim(uses=5)
    assert api.post(f"/api/claims/{taken_back['id']}:revoke").json()["revoked_at"]
    assert why(taken_back["claim"]).startswith("claim: was revoked at 2026-11-23 12:00")
    late = claim(expires_in_hours=1)
    api.clock.forward(hours=2)
    assert why(late["claim"]).startswith("claim: expired at 2026-11-23 13:00")
    refused(api.post("/api/claims/clm_0:revoke"), 404, "claim", "unknown_claim")
    listed = {one["id"]: one for one in api.get("/api/claims").json()["items"]}
    assert listed[taken_back["id"]]["uses_left"] == 5
    assert all("claim" not in one for one in listed.values())


# --- revocation -------------------------------------------------------------------------------------


def test_a_revoked_device_is_refused_at_once_and_its_certificate_is_on_the_list(
    api: Api, device: Keyed
) -> None:
    serial = int(device.shown["certificate"]["serial"], 16)
    assert device.api.check("dev-1", device.token).status_code == 200
    assert lists(api) == {"CN=Skylift device CA 1": []}
    assert api.post("/api/devices/dev-1:revoke").json()["status"] == "decommissioned"
    assert device.api.check("dev-1", device.token).status_code == 401
    api.clock.forward(seconds=2)
    (line,) = lists(api)["CN=Skylift device CA 1"]
    assert line.serial_number == serial
    assert (
        line.extensions.get_extension_for_class(x509.CRLReason).value.reason
        == x509.ReasonFlags.key_compromise
    )
    # Neither a claim nor another name brings the stolen key back; a new key comes in.
    refused(device.enroll(), 403, "csr", "key_revoked")
    device.key = identity.new_key()
    assert device.enroll().status_code == 201
    api.clock.forward(days=400)
    assert lists(api) == {"CN=Skylift device CA 1": []}  # it has run out: the list need not name it


@ON_SQLITE
def test_a_decommissioned_device_is_on_the_list_and_may_come_back(api: Api, device: Keyed) -> None:
    assert api.post("/api/devices/dev-1:decommission").status_code == 200
    (line,) = lists(api)["CN=Skylift device CA 1"]
    reason = line.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason == x509.ReasonFlags.cessation_of_operation
    assert device.shown["certificate"] is None
    assert device.enroll().status_code == 201
    assert device.shown["certificate"]["days_left"] == 365
    api.post("/api/devices/dev-1:decommission")
    api.post("/api/devices/dev-1:revoke")  # found out later
    refused(device.enroll(), 403, "csr", "key_revoked")


# --- authorities ------------------------------------------------------------------------------------


def test_a_rotated_authority_stays_trusted_until_no_device_needs_it(api: Api, device: Keyed) -> None:
    assert api.post("/api/authorities:rotate").status_code == 200
    both = api.get("/api/authorities").json()["items"]
    assert [(one["authority"], one["issues"], one["devices"]) for one in both] == [
        (1, False, 1),
        (2, True, 0),
    ]
    assert len(x509.load_pem_x509_certificates(api.get("/api/authorities/bundle.pem").content)) == 2
    refused(api.post("/api/authorities/1:retire"), 409, "authority", "authority_in_use")
    refused(api.post("/api/authorities/2:retire"), 409, "authority", "authority_in_use")
    refused(api.post("/api/authorities/7:retire"), 404, "authority", "unknown_authority")
    renewed = parsed(device.certificate(device.key))  # the same key: its own signature is enough
    assert renewed.issuer.rfc4514_string() == "CN=Skylift device CA 2"
    assert [one["authority"] for one in api.post("/api/authorities/1:retire").json()["items"]] == [2]
    assert list(lists(api)) == ["CN=Skylift device CA 2"]


@ON_SQLITE
def test_a_stolen_authority_is_retired_although_devices_depend_on_it(api: Api, device: Keyed) -> None:
    api.post("/api/authorities:rotate")
    answer = api.post("/api/authorities/1:retire", {"force": True})
    assert [one["authority"] for one in answer.json()["items"]] == [2]
    assert device.certificate(device.key).status_code == 200  # by token and key: it needs no certificate
