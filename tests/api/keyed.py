"""A device with a key of its own, for tests."""

import json
from typing import Any

import httpx2

from skylift.trust import identity
from skylift.trust.identity import Purpose

from .conftest import Api


class Keyed:
    """A device with a key of its own, as its agent would speak."""

    def __init__(self, api: Api, name: str = "dev-1") -> None:
        self.api, self.name = api, name
        self.token = f"dev_{name}-0123456789abcdef"
        self.key = identity.new_key()
        self.sequence = 0

    def enroll(self, claim: str | None = None, **more: Any) -> httpx2.Response:
        claim = claim or self.api.post("/api/claims", {"uses": 1}).json()["claim"]
        body = {"claim": claim, "device_id": self.name, "device_type": "sensor-v2", "token": self.token}
        return self.api.post(
            "/api/enroll", body | {"csr": identity.request(self.key, self.name)} | more, token=""
        )

    def certificate(self, key: bytes, proof: str = "") -> httpx2.Response:
        body = {"csr": identity.request(key, self.name), "proof": proof}
        return self.api.post(f"/api/devices/{self.name}/certificate", body, token=self.token)

    def body(self, deployment: str, state: str, **more: Any) -> bytes:
        self.sequence += 1
        said = {"device_id": self.name, "deployment": deployment, "state": state, "sequence": self.sequence}
        return json.dumps(said | more).encode()

    def send(
        self, body: bytes, key: bytes | None = None, purpose: Purpose = Purpose.REPORT
    ) -> httpx2.Response:
        return self.post("/api/updates/status", body, identity.sign(key or self.key, purpose, body))

    def post(self, path: str, body: bytes, signature: str = "") -> httpx2.Response:
        headers = {"Content-Type": "application/json"} | (
            {"Skylift-Signature": signature} if signature else {}
        )
        return self.api.call("POST", path, token=self.token, content=body, headers=headers)

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = self.api.get(f"/api/devices/{self.name}/timeline").json()["items"]
        return [one["data"] for one in found if one["kind"] == kind]

    @property
    def shown(self) -> Any:
        return self.api.get(f"/api/devices/{self.name}").json()

    @property
    def state(self) -> str:
        found: str = self.shown["updates"][0]["state"]
        return found


def enrolled(api: Api) -> Keyed:
    """One that has its certificate."""
    made = Keyed(api)
    assert made.enroll().status_code == 201
    return made
