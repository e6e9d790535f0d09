"""Blobs in an S3-compatible object store. The bytes go in here; out they go without us, by presigned URLs.

An upload is gathered and checked in a local file (whoever checks an image wants a file), then sent in parts
of a few megabytes. The store shows an object when all of it is there, so under a digest nothing is ever half
there; the parts of an upload that broke are the bucket's to forget, by a lifecycle rule.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import S3Store

from skylift.core.errors import Unavailable, invalid
from skylift.engine.blobs import Intake, Stored, sweep

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

LOG = structlog.get_logger("skylift.blobs")
URL_LIFE = timedelta(minutes=15)  # to follow it at once, and what two clocks may differ
PART = 8 << 20  # bytes; at most 10,000 of them make an object
PARTS_AT_ONCE = 2  # in memory, per upload
TIMES: "ClientConfig" = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "300s"}
AGAIN: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
# obstore has one error for every answer it has no name for; the status is in its words.
_STATUS = re.compile(r"status code: (\d{3})")
_REFUSED = {
    "400": "the store does not take the credentials, or the region is another",
    "401": "the store does not know the credentials",
    "403": "the credentials do not open this bucket",
    "404": "there is no such bucket",
}
AGAIN_S = 30.0  # what a client is told when the store does not answer


@dataclass(frozen=True, slots=True)
class Place:
    """`s3://bucket/prefix`, and what is not in the environment under AWS_... names. Devices may know the
    store by another endpoint than the servers."""

    url: str
    endpoint: str = ""
    public_endpoint: str = ""
    region: str = ""
    allow_http: bool = False


class Bucket:
    """One prefix of one bucket, and a local folder for what is on its way."""

    def __init__(self, place: Place, scratch: Path) -> None:
        where = urlsplit(place.url)
        if where.scheme != "s3" or not where.netloc:
            raise invalid("blobs", place.url, "s3://bucket/prefix, or a folder")
        self._place = place
        self.scratch = scratch
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._store = _store(place, place.endpoint)
        self._signs = _store(place, place.public_endpoint) if place.public_endpoint else self._store

    def check(self) -> None:
        """At the start: `Rejected` where the bucket will not do, `Unavailable` where it does not answer."""
        try:
            for _ in obstore.list(self._store, chunk_size=1):
                break
        except BaseError as e:
            if "builder error" in str(e):  # a URL the client would not even ask
                rule = "its endpoint is to be reached by https, or blobs_allow_http to be set"
                raise invalid("blobs", self._place.url, rule) from e
            if (status := _STATUS.search(str(e))) is None or status[1] not in _REFUSED:
                raise _away(e) from e
            raise invalid("blobs", self._place.url, _REFUSED[status[1]], code="no_bucket") from e

    def sweep(self, starting: bool = False) -> None:
        sweep(self.scratch, starting)

    def has(self, sha256: str) -> bool:
        try:
            obstore.head(self._store, _key(sha256))
        except FileNotFoundError:
            return False
        except BaseError as e:
            raise _away(e) from e
        return True

    def url(self, sha256: str, method: str) -> str | None:
        verb: Literal["HEAD", "GET"] = "HEAD" if method == "HEAD" else "GET"
        try:
            return obstore.sign(self._signs, verb, _key(sha256), URL_LIFE)
        except BaseError as e:  # credentials that come from a service, which does not answer
            raise _away(e) from e

    def path(self, sha256: str) -> Path:
        raise AssertionError("a bucket has no files: its URLs are followed")

    @contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        path = self.scratch / secrets.token_hex(8)
        try:
            self._fetch(sha256, path)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _fetch(self, sha256: str, path: Path) -> None:
        try:
            with path.open("xb") as file:
                for chunk in obstore.get(self._store, _key(sha256)).stream(min_chunk_size=1 << 20):
                    file.write(chunk)
        except BaseError as e:
            raise _away(e) from e
        except FileNotFoundError as e:
            raise Unavailable(f"the blob store has no {sha256}", AGAIN_S) from e
        except OSError as e:
            raise Unavailable(f"the scratch folder cannot be written: {e.strerror}", 60) from e

    def remove(self, sha256: str) -> None:
        try:
            obstore.delete(self._store, _key(sha256))
        except FileNotFoundError:
            return
        except BaseError as e:
            raise _away(e) from e

    def intake(self, limit: int) -> Intake:
        return Intake(self.scratch, limit, self._settle)

    def _settle(self, source: Path, stored: Stored) -> None:
        key = _key(stored.sha256)
        try:
            if not self.has(stored.sha256):
                obstore.put(self._store, key, source, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)
        except BaseError as e:
            raise _away(e) from e
        source.unlink(missing_ok=True)


def _store(place: Place, endpoint: str) -> S3Store:
    where = urlsplit(place.url)
    config: S3Config = {}
    if endpoint:
        config["endpoint"] = endpoint
    if place.region:
        config["region"] = place.region
    options: ClientConfig = {**TIMES}
    if place.allow_http:
        options["allow_http"] = True
    prefix = where.path.strip("/") or None
    try:
        return S3Store(where.netloc, prefix=prefix, config=config, client_options=options, retry_config=AGAIN)
    except BaseError as e:
        raise invalid("blobs", place.url, _said(e)) from e


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _said(error: BaseError) -> str:
    """The first line of what obstore says, without its debug dump."""
    return str(error).splitlines()[0][:200]


def _away(error: BaseError) -> Unavailable:
    LOG.warning("blob store", error=_said(error))  # its address is nobody's business who asks us
    return Unavailable("the blob store does not answer", AGAIN_S)
