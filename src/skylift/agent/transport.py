"""The device's way to its server: a few bounded requests over urllib3, and one download that resumes.

Anything unexpected is `Unavailable` with a time to come again, or `Refused` where the server says that asking
again is useless. Nothing here believes what it is told.
"""

import json
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

import urllib3

from skylift.agent.config import Config
from skylift.agent.disk import Disk
from skylift.agent.identity import Identity
from skylift.agent.patience import pool, within
from skylift.core.errors import SkyliftError, TrustError, Unavailable
from skylift.core.lifecycle import OUTCOMES, Reason
from skylift.firmware import packed

MAX_ANSWER = 64 << 10
CHUNK = 64 << 10
CONNECT_S, READ_S = 10.0, 30.0
ANSWER_S = 60.0  # for a whole answer or metadata file, from the connection to its last byte
HEAD_S = 120.0  # more than a download's own deadline, for everything around its bytes
SLOW_WINDOW_S = 60.0
LONGEST_S = 3600.0  # whatever a server says, it is asked again within the hour


class Refused(SkyliftError):
    """The server will not take this, however often it is said. `status` is HTTP's."""

    code = "refused"

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class NotResumed(Unavailable):
    """The server sends the whole file where a part was asked for."""


class NoLine(Unavailable):
    """Nobody answered: it says nothing about what was asked for."""


@dataclass
class Transport:
    """One server, one device. `token` is the device's own."""

    config: Config
    token: str
    identity: Identity | None = None

    def __post_init__(self) -> None:
        self.present()
        self._headers = {"Authorization": f"Bearer {self.token}", "User-Agent": "skylift-agent"}

    @cached_property
    def _others(self) -> urllib3.PoolManager:
        """For an object store: it has a certificate of its own authority, or of the usual ones. Made when it
        is needed: reading the usual ones takes longer than a poll."""
        trusted = ssl.create_default_context()
        if self.config.ca_file:
            trusted.load_verify_locations(self.config.ca_file)
        return pool(retries=False, timeout=_timeout(), maxsize=2, ssl_context=trusted)

    def present(self) -> None:
        """Connections to our server, showing the device's certificate to whoever asks for it in TLS."""
        options: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED"}
        if self.config.ca_file:
            options["ca_certs"] = self.config.ca_file
        if self.identity is not None and (file := self.identity.file) is not None:
            options["cert_file"] = str(file)
        self._pool = pool(retries=False, timeout=_timeout(), maxsize=2, **options)

    def check(self, version: str, config_version: str, sha256: str) -> dict[str, Any]:
        """The check's answer; anything but a well-formed 200 is "no update now"."""
        asked = {
            "device_id": self.config.device_id,
            "current_version": version,
            "device_type": self.config.device_type,
        }
        extra = {
            "config_version": config_version,
            "image_sha256": sha256,
            "memory": str(self.config.delta_memory_bytes),
            "codecs": ",".join(codec for codec in packed.CODECS if packed.available(codec)),
        }
        asked |= {name: value for name, value in extra.items() if value}
        answer = self._json("GET", f"/api/updates/check?{urlencode(asked, safe=',')}")
        if not isinstance(answer.get("update_available"), bool):
            raise Unavailable("the check's answer makes no sense", 60)
        return answer

    def report(self, report: dict[str, Any]) -> dict[str, Any]:
        """Deliver a status report; the server's answer. `Refused` when it never will be taken. What ends an
        update is signed, where the device has a key."""
        said = {"device_id": self.config.device_id, **report}
        if report.get("state") not in OUTCOMES or self.identity is None or not self.identity.has_key:
            return self._json("POST", "/api/updates/status", said)
        body, signature = self.identity.signed(said)
        return self._json("POST", "/api/updates/status", body, **{"Skylift-Signature": signature})

    def health(self, healthy: bool, metrics: Mapping[str, float]) -> None:
        """Say how the device is; signed, where it has a key."""
        said = {"healthy": healthy, "metrics": dict(metrics)}
        where = f"/api/devices/{self.config.device_id}/health"
        if self.identity is None or not self.identity.has_key:
            self._json("POST", where, said)
            return
        body, signature = self.identity.signed(said, "health")
        self._json("POST", where, body, **{"Skylift-Signature": signature})

    def enroll(self, claim: str) -> None:
        """Make this device's token known, and its key."""
        body = {
            "claim": claim,
            "device_id": self.config.device_id,
            "device_type": self.config.device_type,
            "token": self.token,
        }
        if self.identity is not None and (request := self.identity.request()) is not None:
            body["csr"] = request
        self._certified(self._json("POST", "/api/enroll", body))

    def certify(self) -> None:
        """Get the device's certificate, or the next one. `Unavailable` also for an answer that holds none."""
        if self.identity is None:
            return
        where = f"/api/devices/{self.config.device_id}/certificate"
        if not self._certified(self._json("POST", where, self.identity.renewal())):
            raise Unavailable("the server's answer holds no certificate of this device", 60)

    def _certified(self, answer: dict[str, Any]) -> bool:
        if self.identity is None or not self.identity.take(answer):
            return False
        self.present()
        return True

    def metadata(self, repo: str, filename: str, max_bytes: int) -> bytes:
        """A TUF file, for `trust.verify`: `FileNotFoundError` for a 404, at most `max_bytes`."""
        owner = f"/{self.config.device_id}" if repo == "director" else ""
        url = self._url(f"/{repo}{owner}/{quote(filename)}")
        status, headers, body = self._whole("GET", url, filename, max_bytes)
        if status == 404:
            raise FileNotFoundError(filename)
        if status != 200:
            raise _unavailable(status, headers)
        if len(body) > max_bytes:
            raise TrustError(Reason.SIGNATURE_INVALID, f"{filename} is larger than {max_bytes} bytes")
        return body

    def ask(self, path: str) -> Any:
        """A JSON answer, for `trust.log`: `FileNotFoundError` for a 404."""
        status, headers, body = self._whole("GET", self._url(path), path.partition("?")[0], MAX_ANSWER)
        if status == 404:
            raise FileNotFoundError(path)
        if status != 200:
            raise Unavailable(f"the server answers {status}", _retry_after(headers.get("Retry-After", "")))
        try:
            return json.loads(body) if len(body) <= MAX_ANSWER else None
        except (ValueError, RecursionError):
            return None

    def download(self, url: str, sha256: str, offset: int, length: int) -> Iterator[bytes]:
        """The file's bytes from `offset` to `length`, in chunks; never more than that.

        `sha256` is the ETag a resumed download insists on. Gives up (`Unavailable`) on a line slower than the
        configured rate over a minute, and past the deadline.
        """
        part = {"Range": f"bytes={offset}-", "If-Range": f'"{sha256}"'} if offset else {}
        with within(self.config.download_deadline_seconds + HEAD_S):
            try:
                answer = self._answered(self._url(url), part)
                try:
                    if offset and answer.status == 200:
                        raise NotResumed("the server does not resume this file", 1)
                    if answer.status != (206 if offset else 200):
                        raise _unavailable(answer.status, answer.headers)
                    yield from self._paced(answer, length - offset)
                finally:
                    answer.close()
            except (urllib3.exceptions.HTTPError, OSError) as e:
                raise Unavailable(f"the download broke: {e}", 5) from e

    def _answered(self, where: str, part: dict[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            return self._get(where, part)
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise NoLine(f"the download did not begin: {e}", 5) from e

    def _get(self, where: str, part: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """Follow one redirect: our server may send us to the object store where the bytes are. The token is
        for our server only, and so is If-Range: others name the same bytes differently."""
        own = urlsplit(self.config.server)[:2]
        for _ in range(2):
            ours = urlsplit(where)[:2] == own
            headers = {**self._headers, **part} if ours else {k: v for k, v in part.items() if k == "Range"}
            pool = self._pool if ours else self._others
            answer = pool.request("GET", where, headers=headers, preload_content=False, redirect=False)
            if answer.status not in (301, 302, 303, 307, 308):
                break
            answer.close()
            where = urljoin(where, answer.headers.get("Location", ""))
            if urlsplit(where).scheme not in ("https", own[0]):
                raise Unavailable("the server sends us where there is no TLS", 60)
        return answer

    def _paced(self, answer: urllib3.BaseHTTPResponse, remaining: int) -> Iterator[bytes]:
        started = window = time.monotonic()
        in_window = 0
        while remaining > 0:
            # What has come, also of a line that breaks; as it came: nothing that a header says unpacks it.
            chunk = answer.read1(min(CHUNK, remaining), decode_content=False)
            if not chunk:
                raise Unavailable(f"the download ended {remaining} bytes early", 5)
            remaining -= len(chunk)
            in_window += len(chunk)
            yield chunk
            now = time.monotonic()
            if now - started > self.config.download_deadline_seconds:
                raise Unavailable("the download passed its deadline", 60)
            if now - window > SLOW_WINDOW_S:
                if in_window < self.config.min_bytes_per_second * (now - window):
                    raise Unavailable("the download is too slow", 60)
                window, in_window = now, 0

    def _url(self, path: str) -> str:
        return urljoin(self.config.server, path)

    def _whole(
        self, method: str, url: str, name: str, at_most: int, data: bytes | None = None, **headers: str
    ) -> tuple[int, Mapping[str, str], bytes]:
        """(status, headers, body) of a small answer; one byte more than `at_most` where it is larger. Raises
        `Unavailable`, at the latest after `ANSWER_S`."""
        with within(ANSWER_S) as watch:
            try:
                answer = self._pool.request(
                    method,
                    url,
                    headers=self._headers | headers,
                    body=data,
                    preload_content=False,
                    redirect=False,
                )
                try:
                    body = answer.read(at_most + 1, decode_content=False)
                    if len(body) > at_most:
                        answer.close()
                finally:
                    answer.release_conn()
            except (urllib3.exceptions.HTTPError, OSError) as e:
                why = f"no whole answer within {ANSWER_S:g} s" if watch.over else str(e)
                raise Unavailable(f"{name}: {why}", 10) from e
            if watch.over:
                raise Unavailable(f"{name}: no whole answer within {ANSWER_S:g} s", 10)
        if not body and answer.length_remaining is None and not answer.chunked:  # cut in its head
            raise Unavailable(f"{name}: the answer ended before it said how long it is", 10)
        if answer.length_remaining and len(body) <= at_most:  # a line that broke: no verdict on what came
            raise Unavailable(f"{name}: the answer ended {answer.length_remaining} bytes early", 10)
        return answer.status, answer.headers, body

    def _json(
        self, method: str, path: str, body: dict[str, Any] | bytes | None = None, **headers: str
    ) -> dict[str, Any]:
        name = path.partition("?")[0]
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        if body is not None:
            headers["Content-Type"] = "application/json"
        status, told, raw = self._whole(method, self._url(path), name, MAX_ANSWER, data, **headers)
        if status not in (200, 201):
            raise _unavailable(status, told, raw)
        try:
            found = json.loads(raw) if len(raw) <= MAX_ANSWER else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unavailable(f"{name}: the answer is no JSON object", 60)
        return found


def _timeout() -> urllib3.Timeout:
    return urllib3.Timeout(connect=CONNECT_S, read=READ_S)


def _unavailable(status: int, headers: Mapping[str, str], raw: bytes = b"") -> SkyliftError:
    """`Refused` for what repeating does not mend, `Unavailable` with the server's own time otherwise."""
    told = raw[:300].decode("utf-8", "replace")
    if status in (400, 403, 404, 409, 413, 422):
        return Refused(status, f"the server refuses ({status}): {told}")
    return Unavailable(f"the server answers {status}", _retry_after(headers.get("Retry-After", "")))


def _retry_after(told: str) -> float:
    """Seconds, from a number or a date; half a minute where it says neither."""
    if told.isascii() and told.isdecimal():
        return min(float(told), LONGEST_S)
    try:
        seconds = parsedate_to_datetime(told).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 30.0
    return min(max(seconds, 1.0), LONGEST_S)


def own_token(disk: Disk, config: Config) -> str:
    """The device's token: made here, kept before it is told to anybody."""
    path = config.state_dir / "shared" / "token"
    if token := token_of(config):
        return token
    token = "dev_" + secrets.token_urlsafe(32)
    disk.replace(path, token.encode())
    return token


def token_of(config: Config) -> str:
    """The device's token as it is kept; empty before there is one."""
    path = config.state_dir / "shared" / "token"
    return path.read_text().strip() if path.exists() else ""
