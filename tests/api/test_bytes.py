"""Python stays out of the byte path: the application hands over a path, the server sends the file."""

import asyncio
import hashlib
from typing import Any

from .conftest import Api


def sent(api: Api, path: str, **headers: str) -> list[dict[str, Any]]:
    """What the application says to a server that can send files itself, as ours can."""
    held = {"authorization": f"Bearer {api.admin}", "host": "skylift", **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in held.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "extensions": {"http.response.pathsend": {}},
    }
    said: list[dict[str, Any]] = []

    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in asked:
            return message
        await asyncio.Event().wait()  # nobody hangs up
        raise AssertionError

    async def send(message: Any) -> None:
        said.append(dict(message))

    asyncio.run(api.server.app(scope, receive, send))  # type: ignore[arg-type] # a scope is a mapping
    return said


def test_an_image_leaves_as_a_path_and_not_as_bytes(api: Api, image: bytes) -> None:
    api.hold_ceremony()
    api.publish("1.1.0", image)
    digest = hashlib.sha256(image).hexdigest()
    start, body = sent(api, f"/api/blobs/{digest}")
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-length"] == str(len(image)).encode()
    assert body["type"] == "http.response.pathsend"
    with open(body["path"], "rb") as file:
        assert file.read() == image
    part = sent(api, f"/api/blobs/{digest}", range="bytes=10-19")
    assert part[0]["status"] == 206
    assert b"".join(message.get("body", b"") for message in part[1:]) == image[10:20]
