"""A microcontroller at the plain API: its nonce comes back in the signed order; little else is fetched."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from skylift.trust import compact
from skylift.trust.pinned import export
from skylift.trust.plain import Refused

from .conftest import Api
from .test_bad_input import refused

NONCE = "0011223344556677"


def pinned(api: Api) -> compact.Device:
    roots = [(api.desk.path / "public" / f"{repo}.root.json").read_bytes() for repo in ("image", "director")]
    return compact.Device("dev-1", "sensor-v2", "sensor", *roots)


def updated(api: Api, own: compact.Device, answer: dict[str, Any], token: str) -> None:
    """What the answer says is newer, fetched and taken."""
    for repo, name in own.wants(answer["trust"]):
        path = f"/image/{name}" if repo == "image" else f"/director/dev-1/{name}"
        body = api.get(path, token=token).content
        if name.endswith("root.json"):
            own.take_root(repo, body)
        else:
            own.take_delegations(body, None)


def test_a_small_device_takes_its_order_with_its_nonce_and_the_image(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    api.publish("1.1.0", image)
    token, own = api.device("dev-1"), pinned(api)
    api.deploy("1.1.0")
    answer = api.check("dev-1", token, nonce=NONCE).json()
    assert own.wants(answer["trust"]) == [("image", "1.targets.json")]
    updated(api, own, answer, token)
    assert own.wants(answer["trust"]) == []
    order = api.get(answer["trust"]["order_url"], token=token).content
    role = api.get(f"/image/{answer['trust']['role']}.sensor.json").content
    found = own.decide(order, role, NONCE, None)
    assert found is not None
    assert (found.version, found.sha256) == ("1.1.0", sha256(image).hexdigest())
    assert api.get(answer["url"], token=token).content == image
    with pytest.raises(Refused, match="nonce"):  # the same answer to the next question
        own.decide(order, role, "8899aabbccddeeff", None)


def test_an_order_that_has_lain_too_long_is_fresh_when_a_small_device_asks(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    api.publish("1.1.0", image)
    token, own = api.device("dev-1"), pinned(api)
    api.deploy("1.1.0", lifetime_minutes=60 * 24 * 30)
    api.check("dev-1", token, nonce=NONCE)
    api.clock.forward(days=4)
    answer = api.check("dev-1", token, nonce=NONCE).json()
    updated(api, own, answer, token)
    order = api.get(f"/director/dev-1/order.json?nonce={NONCE}", token=token).content
    role = api.get(f"/image/{answer['trust']['role']}.sensor.json").content
    assert own.decide(order, role, NONCE, int(api.clock().timestamp())) is not None


def test_a_small_device_pins_the_log_and_holds_every_later_one_to_it(
    api: Api, image: bytes, tmp_path: Path
) -> None:
    """From the checkpoint that the desk exports; a server that keeps another log for it is refused."""
    api.hold_ceremony()
    api.publish("1.1.0", image)
    (api.desk.path / "public" / "log.json").write_text(json.dumps(checkpoint(api)))
    (module,) = export(api.desk, "micropython", tmp_path)
    factory: dict[str, Any] = {}
    exec(module.read_text(), factory)  # noqa: S102 - as the device imports it
    token = api.device("dev-1")
    roots = factory["IMAGE_ROOT"], factory["DIRECTOR_ROOT"]
    pin = {"log_size": factory["LOG_SIZE"], "log_root": factory["LOG_ROOT"]}
    own = compact.Device("dev-1", "sensor-v2", "sensor", *roots, **pin)
    assert own.log_size > 0
    api.deploy("1.1.0")
    answer = api.check("dev-1", token, nonce=NONCE).json()
    updated(api, own, answer, token)
    order = api.get(answer["trust"]["order_url"], token=token).content
    role = api.get(f"/image/{answer['trust']['role']}.sensor.json").content
    asked = []

    def ask(leaves: list[str], since: int, size: int) -> bytes:
        asked.append((since, size))
        params = {"leaf": leaves, "since": since, "size": size}
        found = api.get("/api/log/compact", params=params, token="")
        assert found.status_code == 200, found.text
        return found.content

    with pytest.raises(Refused, match="log: shown and proved"):
        own.decide(order, role, NONCE, None)
    found = own.decide(order, role, NONCE, None, ask)
    assert found is not None
    assert found.version == "1.1.0"
    assert asked == [(factory["LOG_SIZE"], own.log_size)]
    assert checkpoint(api) == {"size": own.log_size, "root": own.log_root}
    other = compact.Device("dev-1", "sensor-v2", "sensor", *roots, log_size=3, log_root="00" * 32)
    updated(api, other, answer, token)
    with pytest.raises(Refused, match="log: goes on"):
        other.decide(order, role, NONCE, None, ask)


def checkpoint(api: Api) -> dict[str, Any]:
    told = api.get("/api/log/checkpoint", token="").json()
    return {"size": told["size"], "root": told["root"]}


def test_what_a_small_device_asks_of_the_log_is_bounded(api: Api) -> None:
    api.hold_ceremony()
    size = checkpoint(api)["size"]
    leaf = api.get("/api/log/entries", token="").json()["items"][0]["leaf"]

    def asks(leaves: list[str], **more: int) -> Any:
        return api.get("/api/log/compact", params={"leaf": leaves, **more}, token="")

    assert asks([leaf], size=size, since=size).json()["consistency"] == []
    refused(asks([leaf], size=size + 1), 422, "size")
    refused(asks([leaf], size=size, since=size + 1), 422, "since")
    refused(asks(["x"], size=size), 422, "leaf[0]")
    refused(asks(["0" * 64], size=size), 404, "leaf", "unknown_entry")
    refused(asks([leaf] * 9, size=size), 422, "leaf")


@pytest.mark.parametrize("nonce", ["", "0123", "0011223344556677x", "00112233445566AA", "0" * 65, '0"' * 8])
def test_a_nonce_is_16_to_64_hexadecimal_digits(api: Api, nonce: str) -> None:
    token = api.device("dev-1")
    for path in ("/api/updates/check", "/director/dev-1/order.json"):
        asked = {"device_id": "dev-1", "current_version": "1.0.0", "device_type": "sensor-v2", "nonce": nonce}
        refused = api.get(path, params=asked, token=token)
        assert refused.status_code == 422, refused.text
        assert refused.json()["field"] == "nonce"
