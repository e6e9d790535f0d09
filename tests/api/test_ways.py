"""What a device gives for an update, and how it went: asked, written down, counted once."""

from typing import Any

import pytest

from skylift.store import devices, pieces

from .conftest import Api

GIVEN = {"memory": "20000000", "codecs": "xz,zstd"}


def ask(api: Api, token: str, **more: str) -> Any:
    query = {"device_id": "dev-1", "device_type": "sensor-v2", "current_version": "1.0.0", **more}
    return api.get("/api/updates/check", params=query, token=token)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"memory": "-1", "codecs": "xz"}, "memory"),
        ({"memory": "1" * 16, "codecs": "xz"}, "memory"),
        ({"memory": "\u0661", "codecs": "xz"}, "memory"),
        ({"memory": "1"}, "codecs"),
        ({"codecs": "xz"}, "memory"),
        ({"memory": "1", "codecs": "XZ"}, "codecs"),
        ({"memory": "1", "codecs": "a,b,c,d,e,f,g,h"}, "codecs"),
    ],
)
def test_what_a_device_gives_has_a_form(given: dict[str, str], field: str, api: Api) -> None:
    answer = ask(api, api.device("dev-1"), **given)
    assert answer.status_code == 422
    assert answer.json()["field"] == field


def test_it_is_written_down_with_news_and_the_way_is_counted_once(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    release = api.publish("1.1.0", image)
    token = api.device("dev-1")
    ask(api, token, **GIVEN)
    with api.database.read() as conn:
        device = devices.find_device(conn, "dev-1")
        assert device is not None
        found = pieces.means_of(conn, device.pk)
    assert (found.memory, found.codecs) == (1 << 24, {"xz", "zstd"}), "rounded down"
    body = {"firmware_version": "1.1.0", "target_devices": ["dev-1"], "all_at_once": True}
    deployment = api.post("/api/deployments", body).json()["id"]
    api.tick()
    assert ask(api, token, **GIVEN).json()["update_available"] is True
    api.report("dev-1", token, deployment, "downloading")
    said = {"way": "full", "passed": {"delta": "broken", "packed": "codec"}}
    for _ in range(2):  # its answer was lost
        assert api.report("dev-1", token, deployment, "installing", **said).status_code == 200
    api.server.tally.flush()
    told = api.get(f"/api/releases/{release}/ways").json()
    assert told["taken"] == {"full": 1}
    assert told["passed"] == {"delta": {"broken": 1, "unknown_base": 1}, "packed": {"codec": 1}}
    wrong = {"way": "pigeon"}
    assert api.report("dev-1", token, deployment, "installing", **wrong).status_code == 422
