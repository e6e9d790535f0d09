"""Bills of materials: judged, kept byte for byte, signed with the release, and seen by the device."""

import hashlib
import json
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot2, JsonV1Dot3, JsonV1Dot4, JsonV1Dot5, JsonV1Dot6, JsonV1Dot7
from packageurl import PackageURL

from skylift.core.errors import Rejected
from skylift.engine.bill import check_bill
from skylift.firmware.sbom import Bill
from skylift.trust.files import Targets, read

from .conftest import Api
from .test_bad_input import refused

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def bill(count: int = 3) -> bytes:
    return written(JsonV1Dot6, count)


def written(form: type[Any], count: int = 3) -> bytes:
    """As a real tool writes it."""
    made = Bom()
    made.metadata.component = Component(name="sensor", version="1.1.0", type=ComponentType.FIRMWARE)
    for number in range(count):
        name = f"part-{number}"
        made.components.add(
            Component(name=name, version="1.0", bom_ref=name, purl=PackageURL("generic", None, name, "1.0"))
        )
    return str(form(made).output_as_string()).encode()


def changed(**parts: Any) -> bytes:
    return json.dumps({**json.loads(bill()), **parts}).encode()


def attach(api: Api, release: str, body: bytes) -> Any:
    return api.call("POST", f"/api/releases/{release}/sbom", content=body)


def test_a_bill_is_kept_as_it_came_and_its_digest_is_signed_with_the_image(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    release = api.draft("1.1.0")
    api.upload(release, image)
    assert attach(api, release, bill(1)).status_code == 201
    body = bill()
    shown = attach(api, release, body).json()["sbom"]  # the last one counts
    digest = hashlib.sha256(body).hexdigest()
    assert shown == {
        "sha256": digest,
        "size": len(body),
        "spec_version": "1.6",
        "components": 3,
        "subject": "sensor 1.1.0",
    }
    api.post(f"/api/releases/{release}:seal")
    refused(attach(api, release, body), 409, "release", "release_sealed")
    for number in (1, 2):
        assert api.sign(number).status_code == 200
    signed = read("sensor", api.get("/image/1.sensor.json").content, Targets).signed
    (target,) = signed.targets.values()
    assert target.unrecognized_fields["custom"]["sbom"] == digest
    answer = api.get(f"/api/releases/{release}/sbom")
    assert answer.content == body
    assert answer.headers["content-type"] == "application/vnd.cyclonedx+json"
    token = api.device("dev-1")
    made = api.deploy("1.1.0")
    assert api.check("dev-1", token).json()["deployment"] == made
    order = api.get("/director/dev-1/1.targets.json", token=token).json()["signed"]["targets"]
    (ordered,) = order.values()
    assert ordered["custom"]["image"]["sbom"] == digest  # what the device sees of it


@ON_SQLITE
def test_a_release_without_a_bill_is_signed_as_ever(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    release = api.publish("1.1.0", image)
    signed = read("sensor", api.get("/image/1.sensor.json").content, Targets).signed
    assert all("sbom" not in one.unrecognized_fields["custom"] for one in signed.targets.values())
    refused(api.get(f"/api/releases/{release}/sbom"), 404, "release", "no_sbom")


@ON_SQLITE
def test_what_is_no_bill_is_refused_by_the_field_that_is_wrong(api: Api) -> None:
    api.hold_ceremony()
    release = api.draft("1.1.0")
    part = {"type": "library", "name": "a", "bom-ref": "x"}
    for body, field in (
        (b"", "body"),
        (b"[1]", "bomFormat"),
        (b"<bom/>", "body"),
        (b"[" * 5000 + b"]" * 5000, "body"),
        (bill().decode().encode("utf-16"), "body"),
        (changed(components=[{**part, "name": "\ud800"}]), "body"),
        (changed(**{"\ud800": 1}), "body"),
        (changed(vulnerabilities=[{"ratings": [{"score": float("nan")}]}]), "body"),
        (bill().replace(b'"version": 1', b'"version": 1, "version": 2', 1), "body"),
        (changed(bomFormat="SPDX"), "bomFormat"),
        (changed(specVersion="9.9"), "specVersion"),
        (changed(version=0), "version"),
        (changed(serialNumber="urn:uuid:1"), "serialNumber"),
        (changed(components={}), "components"),
        (changed(components=[7]), "components[0]"),
        (changed(components=[{**part, "type": "thing"}]), "components[0].type"),
        (changed(components=[{**part, "name": ""}]), "components[0].name"),
        (changed(components=[{**part, "version": 2}]), "components[0].version"),
        (changed(components=[{**part, "purl": "http://x"}]), "components[0].purl"),
        (changed(components=[part, part]), "components[1].bom-ref"),
        (changed(components=[{**part, "components": [part]}]), "components[0].components[0].bom-ref"),
        (changed(metadata=[]), "metadata"),
        # From here on it is CycloneDX's own schema that says so.
        (changed(annotation="x"), "annotation"),
        (changed(components=[{**part, "licenses": [{"license": {"id": "MIT-0815"}}]}]),
         "components[0].licenses"),
        (changed(components=[{**part, "hashes": [{"alg": "SHA-255", "content": "ab" * 32}]}]),
         "components[0].hashes[0].alg"),
        (changed(components=[{**part, "hashes": [{"alg": "SHA-256", "content": "xyz"}]}]),
         "components[0].hashes[0].content"),
        (changed(components=[{**part, "mime-type": "text"}]), "components[0].mime-type"),
        (changed(metadata={"timestamp": "yesterday"}), "metadata.timestamp"),
        (changed(dependencies=[{"dependsOn": ["x"]}]), "dependencies[0].ref"),
        (changed(vulnerabilities=[{"ratings": [{"severity": "dire"}]}]),
         "vulnerabilities[0].ratings[0].severity"),
    ):  # fmt: skip
        refused(attach(api, release, body), 422, field, "bad_sbom")
    assert api.get(f"/api/releases/{release}").json()["sbom"] is None
    blobs = api.server.settings.data_dir / "blobs"
    assert not [path for path in blobs.rglob("*") if path.is_file()]  # nothing of it was kept


@pytest.mark.parametrize("make", [JsonV1Dot2, JsonV1Dot3, JsonV1Dot4, JsonV1Dot5, JsonV1Dot6, JsonV1Dot7])
def test_every_version_is_held_to_its_own_schema(make: type[JsonV1Dot6]) -> None:
    """As their own library writes it; and with what only another version has."""
    body = written(make)
    version = json.loads(body)["specVersion"]
    assert check_bill(body) == Bill(version, 3, "sensor 1.1.0")
    for field, value in (("compositions", [{"aggregate": "complete"}]), ("formulation", [])):
        known = version >= {"compositions": "1.3", "formulation": "1.5"}[field]
        other = json.dumps({**json.loads(body), field: value}).encode()
        if known:
            check_bill(other)
        else:
            with pytest.raises(Rejected) as refused_:
                check_bill(other)
            assert refused_.value.field == field


def test_the_largest_bill_is_judged_whole() -> None:
    """Its last component as its first; what is said of it is bounded."""
    part = {"type": "library", "name": "n", "version": "1", "licenses": [{"license": {"id": "MIT"}}]}
    parts = [{**part, "bom-ref": str(number)} for number in range(60_000)]
    check_bill(changed(components=parts))
    parts[-1] = {**parts[-1], "scope": "x" * 100_000}
    with pytest.raises(Rejected) as refused_:
        check_bill(changed(components=parts))
    assert refused_.value.field == "components[59999].scope"
    assert len(str(refused_.value)) < 500


@ON_SQLITE
def test_a_bill_may_be_larger_than_other_bodies_but_not_endless(api: Api, monkeypatch: Any) -> None:
    from skylift.engine import publish

    api.hold_ceremony()
    release = api.draft("1.1.0")
    large = changed(properties=[{"name": "note", "value": "x" * (2 << 20)}])
    assert attach(api, release, large).status_code == 201
    monkeypatch.setattr(publish, "MAX_SBOM", 1 << 20)
    assert attach(api, release, large).status_code == 413
    refused(attach(api, "rel_0", bill()), 404, "release", "unknown_release")
    viewer = api.device("dev-1")
    assert api.call("POST", f"/api/releases/{release}/sbom", content=bill(), token=viewer).status_code == 401


@ON_SQLITE
def test_the_desk_shows_the_bill_before_it_signs(api: Api, image: bytes) -> None:
    from skylift.trust.desk import Proposal

    api.hold_ceremony()
    release = api.draft("1.1.0")
    api.upload(release, image)
    body = bill()
    attach(api, release, body)
    api.post(f"/api/releases/{release}:seal")
    public = api.desk.path / "public"
    roots = public / "image.root.json", public / "image.targets.json"
    waiting = api.get("/api/trust/pending/sensor").content
    proposal = Proposal.read("sensor", waiting, None, *roots, api.clock())
    assert any(
        hashlib.sha256(bill()).hexdigest()[:8] in line or "bill of materials" in line
        for line in proposal.lines()
    )
