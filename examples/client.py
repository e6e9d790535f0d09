"""The smallest device: asks, downloads, checks the digest, reports. Standard library only.

    python3 client.py http://127.0.0.1:8080 DEVICE TOKEN sensor-v2 1.0.0

It believes what the server says, which Skylift's own agents never do; it keeps the image beside itself and
boots nothing. It shows the plain HTTP API from a device's side, in the order things happen.
"""

import hashlib
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any


class Device:
    """One device of a fleet."""

    def __init__(self, server: str, device_id: str, token: str, device_type: str) -> None:
        self.server = server
        self.device_id = device_id
        self.device_type = device_type
        self.token = token

    def check(self, version: str) -> dict[str, Any]:
        """What there is to do. Anything but 200 means: nothing now."""
        asked = {"device_id": self.device_id, "current_version": version, "device_type": self.device_type}
        try:
            found: dict[str, Any] = json.load(
                self._open(f"/api/updates/check?{urllib.parse.urlencode(asked)}")
            )
        except (OSError, ValueError):
            return {"update_available": False, "retry_after": 300}
        return found

    def report(self, update: dict[str, Any], state: str, **more: Any) -> dict[str, Any]:
        """Say how it goes."""
        body = {
            "device_id": self.device_id,
            "deployment": update["deployment"],
            "attempt": update["attempt"],
            "state": state,
            **more,
        }
        found: dict[str, Any] = json.load(self._open("/api/updates/status", json.dumps(body).encode()))
        return found

    def download(self, update: dict[str, Any], path: str) -> None:
        """Stream the image to a file; a wrong digest is an error."""
        found = hashlib.sha256()
        with self._open(update["url"]) as source, open(path, "wb") as file:
            while chunk := source.read(64 << 10):
                found.update(chunk)
                file.write(chunk)
        if found.hexdigest() != update["sha256"]:
            raise ValueError(f"{path}: the digest is not what was announced")

    def _open(self, path: str, body: bytes | None = None) -> Any:
        url = urllib.parse.urljoin(self.server, path)
        headers = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - the caller names the server
        # For this server only: it may redirect a download to an object store, which is not to have it.
        request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        return urllib.request.urlopen(request, timeout=30)  # noqa: S310 - as above


def main(server: str, device_id: str, token: str, device_type: str, version: str) -> int:
    device = Device(server, device_id, token, device_type)
    update = device.check(version)
    if not update["update_available"]:
        print(f"nothing to do; again in {update['retry_after']} s")
        return 0
    device.report(update, "downloading", progress=0)
    path = f"{device_id}-{update['version']}.img"
    try:
        device.download(update, path)
    except (OSError, ValueError) as e:
        device.report(update, "failed", reason="download_error", error_message=str(e)[:500])
        return 1
    device.report(update, "installing")
    device.report(update, "validating")
    # A real device boots the image here, and is asked again by its own health checks.
    answer = device.report(update, "complete", version=update["version"], image_sha256=update["sha256"])
    print(f"{path}: {answer['state']}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
