"""Who gets in: enrollment, claims, tokens; repeated requests."""

from .conftest import Api
from .test_bad_input import refused


def test_two_devices_never_share_a_token(api: Api) -> None:
    first = {"device_id": "dev-1", "device_type": "t", "token": "t" * 32}
    assert api.post("/api/devices", first).status_code == 201
    refused(api.post("/api/devices", {**first, "device_id": "dev-2"}), 409, "token", "token_taken")
    claim = api.post("/api/claims", {"uses": 1}).json()["claim"]
    asked = {**first, "device_id": "dev-2", "claim": claim}
    refused(api.post("/api/enroll", asked, token=""), 409, "token", "token_taken")
    assert api.post("/api/enroll", {**asked, "token": "u" * 32}, token="").status_code == 201  # not used up
