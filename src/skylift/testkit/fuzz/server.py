"""What a server reads from strangers: certificate requests, signatures, bills of materials, requests as they
come on the socket, and the bodies of its API, through the whole application.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs

import httptools

from skylift.api import plain
from skylift.api.device import Enroll, Health, Status, _clean
from skylift.api.hop import SAID, Hop
from skylift.core.errors import Rejected, SkyliftError
from skylift.core.health import check_metrics
from skylift.firmware.sbom import check_sbom
from skylift.testkit.fuzz.mutate import Target
from skylift.testkit.fuzz.trust import DEVICE, HARDWARE, PRODUCT
from skylift.trust import identity

REPORT = {
    "device_id": DEVICE, "deployment": "dep_1", "state": "failed", "attempt": 1, "progress": 7,
    "reason": "timeout", "error_message": "x", "started_at": "2026-01-01T00:00:00Z",
    "metrics": {"a": 1.5}, "sequence": 3, "log": {"size": 9, "root": "ab" * 32}, "security_floor": 1,
    "image_sha256": "ab" * 32, "healthy": True,
}  # fmt: skip
BILL = {
    "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
    "serialNumber": "urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
    "metadata": {"component": {"type": "firmware", "name": "sensor", "version": "1.1.0"}},
    "components": [
        {"type": "library", "name": "zlib", "version": "1.3", "purl": "pkg:generic/zlib@1.3", "bom-ref": "z"},
        {"type": "framework", "name": "rtos", "components": [{"type": "file", "name": "x", "bom-ref": "y"}]},
    ],
}  # fmt: skip


def targets() -> list[Target]:
    return [*_signed_targets(), *_socket_targets(), *_text_targets()]


# --- what is signed ------------------------------------------------------------------------------------


def _signed_targets() -> list[Target]:
    private, another = identity.new_key(), identity.new_key()
    own = {identity.public_of(private), identity.public_of(another)}
    asked = [identity.request(private, DEVICE), identity.request(another, DEVICE)]
    asked.append(identity.request(private, "dev-2"))
    ders = tuple(base64.b64decode("".join(pem.strip().splitlines()[1:-1])) for pem in asked)
    payload = json.dumps(REPORT).encode()
    made = identity.sign(private, identity.Purpose.REPORT, payload)
    renewal = identity.sign(private, identity.Purpose.RENEWAL, payload)

    def request(body: bytes) -> bool:
        """As PEM of these bytes; and these bytes as if they were PEM."""
        told = base64.encodebytes(body).decode()
        pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{told}-----END CERTIFICATE REQUEST-----\n"
        taken = set()
        for offered in (pem, body.decode("latin-1")):
            with suppress(Rejected):
                taken.add(identity.read_request("csr", offered, DEVICE))
        return not taken <= own

    def signature(body: bytes) -> bool:
        """Signature, a line's end, what it is of."""
        told, _, said = body.partition(b"\n")
        public = identity.public_of(private)
        verified = identity.verifies(public, identity.Purpose.REPORT, said, told.decode("latin-1"))
        return verified and said != payload

    seeds = tuple(each.encode() + b"\n" + payload for each in (made, renewal))
    return [
        Target("certificate requests", 20, ders, request),
        Target("signatures of reports", 20, seeds, signature),
    ]


# --- the socket ----------------------------------------------------------------------------------------


class _Heard:
    """A request as the HTTP server's own parser reads it."""

    def __init__(self) -> None:
        self.url, self.body, self.whole, self.closes = b"", b"", 0, False
        self.headers: list[tuple[bytes, bytes]] = []
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, part: bytes) -> None:
        self.url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.whole += 1
        self.closes = not self.parser.should_keep_alive()


def _socket_targets() -> list[Target]:
    report = json.dumps(REPORT).encode()
    check = b"/api/updates/check?device_id=dev-1&current_version=1.0.0&device_type=sensor-v2"
    requests = (
        b"GET " + check + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer dev_token\r\n\r\n",
        b"GET " + check + b'&nonce=abc HTTP/1.1\r\nauthorization: Bearer t\r\nIf-None-Match: "a"\r\n'
        b"Connection: close\r\nUser-Agent: skylift-agent\r\n\r\n",
        b"POST /api/updates/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer dev_token\r\n"
        b"Content-Type: application/json\r\nSkylift-Signature: MEUCIQ==\r\n"
        b"Content-Length: %d\r\n\r\n" % len(report) + report,
    )
    hop = Hop.read("10.0.0.0/8", "a secret of the proxy's")
    fingerprint = b"ab" * 32
    shown = (
        b"By=spiffe://x;Hash=" + fingerprint + b';Subject="CN=dev-1"',
        b"Hash=" + fingerprint + b",Hash=" + b"cd" * 32,
        b'Cert="-----BEGIN%20CERTIFICATE-----";Hash=' + fingerprint,
    )

    def asked(body: bytes) -> bool:
        """What the door reads as plain, the HTTP server reads as the same."""
        found = plain.read(body, 1 << 20)
        if found is None:
            return False
        told = plain.pairs(found.query) if found.is_check else {}
        if told is None:
            return False  # handed on
        heard = _Heard()
        try:
            heard.parser.feed_data(body)
        except httptools.HttpParserError:
            return True  # a request that the server would refuse
        return not (heard.whole == 1 and _same(found, told, heard))

    def proxied(body: bytes) -> bool:
        """The fingerprint that a proxy wrote, or none; never one that its client wrote."""
        secret = (b"x-skylift-proxy-secret", b"a secret of the proxy's")
        found = hop.certificate("10.1.2.3", [(SAID, body), secret])
        stranger = hop.certificate("192.0.2.1", [(SAID, body), secret])
        return stranger is not None or (found is not None and found.encode() not in body.lower())

    return [
        Target("requests at the door", 120, requests, asked),
        Target("forwarded certificates", 20, shown, proxied),
    ]


def _same(found: plain.Plain, told: dict[str, str], heard: _Heard) -> bool:
    url = httptools.parse_url(heard.url)
    query = (url.query or b"").decode("ascii")
    read = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
    said = {name: [value for given, value in heard.headers if given == name] for name, _ in heard.headers}
    return (
        heard.parser.get_method() == (b"GET" if found.is_check else b"POST")
        and url.path.decode("ascii") == (plain.CHECK if found.is_check else plain.STATUS)
        and (query, read) == (found.query, told)
        and said.get(b"authorization") == [b"Bearer " + found.token]
        and said.get(b"if-none-match", [None]) == [found.tag]
        and said.get(b"skylift-signature", [b""]) == [found.signature]
        and (heard.body, heard.closes) == (found.body, found.closes)
    )


# --- texts ---------------------------------------------------------------------------------------------


def _text_targets() -> list[Target]:
    def reports(body: bytes) -> bool:
        for kind in (Status, Health, Enroll):
            try:
                found = kind.model_validate(json.loads(body))
                if isinstance(found, Status):
                    check_metrics(found.metrics)
                    _clean(found.error_message or "").encode()
            except (SkyliftError, ValueError, RecursionError):  # pydantic's is a ValueError
                continue
        return False

    def bills(body: bytes) -> bool:
        try:
            bill = check_sbom(body)
        except Rejected as e:
            json.dumps([str(e), e.field, str(e.value)], ensure_ascii=False).encode("utf-8", "replace")
            return False
        return bill.spec_version not in body.decode("utf-8", "replace")

    return [
        Target("reports", 60, (json.dumps(REPORT).encode(),), reports, text=True),
        Target("bills of materials", 60, (json.dumps(BILL).encode(),), bills, text=True),
    ]


# --- the application -----------------------------------------------------------------------------------

ADMIN, TOKEN = "admin-token-of-the-fuzzer", "dev_token-of-the-fuzzer"

# Method and path, who asks, an honest body.
ROUTES: tuple[tuple[str, str, str, Any], ...] = (
    ("POST", "/api/updates/status", TOKEN, REPORT),
    ("POST", f"/api/devices/{DEVICE}/health", TOKEN, {"healthy": True, "metrics": {"load": 0.5}}),
    ("POST", f"/api/devices/{DEVICE}/certificate", TOKEN, {"csr": "-----BEGIN", "proof": ""}),
    ("POST", "/api/enroll", "",
     {"claim": "c", "device_id": "dev-9", "device_type": HARDWARE, "token": "t" * 20}),
    ("POST", "/api/claims", ADMIN, {"device_type": HARDWARE, "uses": 3, "expires_in_hours": 1.5}),
    ("POST", "/api/devices", ADMIN, {"device_id": "dev-3", "device_type": HARDWARE, "token": "x" * 20}),
    ("PATCH", f"/api/devices/{DEVICE}", ADMIN, {"labels": {"site": "north"}}),
    ("POST", "/api/releases", ADMIN,
     {"product": PRODUCT, "version": "1.2.0", "security_version": 1, "notes": "n"}),
    ("POST", "/api/groups", ADMIN, {"name": "all-of-them", "query": "device_type=sensor-v2"}),
    ("POST", "/api/deployments", ADMIN, {"firmware_version": "1.2.0", "target_devices": "all"}),
    ("POST", "/api/deployments/dep_1:rollback", ADMIN, {"only": "version=1.2.0"}),
    ("POST", "/api/trust/ceremony", ADMIN,
     dict.fromkeys(("image_root", "director_root", "targets"), "e30=")),
    ("PUT", "/api/trust/pending/image:root", ADMIN, {"body": "e30="}),
    ("POST", f"/api/trust/pending/{PRODUCT}/signatures", ADMIN,
     {"version": 1, "keyid": "ab" * 32, "sig": "30" * 70}),
    ("POST", "/api/tokens", ADMIN, {"name": "ci", "role": "operator"}),
)  # fmt: skip


class Served(Protocol):
    """A whole server that does not listen (`wiring.build`)."""

    app: Any  # ASGI

    def stop(self) -> None: ...


Build = Callable[[Path, str], Served]  # its folder, its first admin's token


@contextmanager
def application(folder: Path, build: Build) -> Iterator[list[Target]]:
    """A target for each of these routes, through the whole application."""
    server = build(folder, ADMIN)
    loop = asyncio.new_event_loop()
    try:
        hosted = _Hosted(server.app, loop)
        known = {"device_id": DEVICE, "device_type": HARDWARE, "token": TOKEN}
        status = hosted.ask("POST", "/api/devices", ADMIN, json.dumps(known).encode())
        if status != 201:
            raise AssertionError(f"the fuzzed server's first device: {status}")
        yield [_route(hosted, *route) for route in ROUTES]
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        server.stop()


def _route(hosted: "_Hosted", method: str, path: str, token: str, body: Any) -> Target:
    def ask(given: bytes) -> bool:
        status = hosted.ask(method, path, token, given)
        if status >= 500:
            raise AssertionError(f"answered {status}")
        return False

    return Target(f"{method} {path}", 1, (json.dumps(body).encode(),), ask, text=True)


class _Hosted:
    """The application, asked without a socket."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._app, self._loop = app, loop

    def ask(self, method: str, path: str, token: str, body: bytes) -> int:
        """The status of the answer. Raises what the application raises."""
        return self._loop.run_until_complete(self._ask(method, path, token, body))

    async def _ask(self, method: str, path: str, token: str, body: bytes) -> int:
        told: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        answered: list[int] = []

        async def receive() -> dict[str, Any]:
            return told.pop() if told else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answered.append(message["status"])

        await self._app(_scope(method, path, token, len(body)), receive, send)
        return answered[0]


def _scope(method: str, path: str, token: str, length: int) -> dict[str, Any]:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
    if token:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {}, "app": None,
    }  # fmt: skip
