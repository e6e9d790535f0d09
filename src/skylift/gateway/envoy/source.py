"""Where a running gateway's configuration comes from: files and directories, or one document behind a URL.

A source is called again and again. It answers None while nothing has changed, and raises the same error again
while what is there does not hold, without reading it anew.
"""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from skylift.core.errors import Rejected, SkyliftError, Unavailable, invalid
from skylift.gateway.envoy.compiler import ANYWHERE, compiled
from skylift.gateway.envoy.edge import Extras
from skylift.gateway.envoy.snapshot import Snapshot
from skylift.gateway.loading import MAX_BYTES, loads
from skylift.gateway.model import Gateway, Listener
from skylift.gateway.read import read, read_documents

FETCH_S = 10.0
Places = Mapping[str, tuple[str, int]]  # a listener's name -> where it listens here


@dataclass
class Files:
    """Files and directories, seen by names, sizes and times; also what comes and goes in a directory."""

    paths: tuple[Path, ...]

    def seen(self) -> object:
        return tuple(_mark(file) for path in self.paths for file in _inside(path))

    def read(self) -> Gateway:
        return read(self.paths)


def _inside(path: Path) -> Iterable[Path]:
    return sorted(path.iterdir()) if path.is_dir() else (path,)


def _mark(file: Path) -> tuple[str, int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return (str(file), 0, 0, 0)
    return (str(file), found.st_mtime_ns, found.st_size, found.st_ino)


@dataclass
class Url:
    """One document that many gateways fetch, by its entity tag. While nobody answers, what runs runs on."""

    url: str
    _etag: str = ""
    _text: str = ""

    def seen(self) -> object:
        known = {"If-None-Match": self._etag} if self._etag else {}
        request = urllib.request.Request(self.url, headers=known)  # noqa: S310 - source() lets only http(s) in
        try:
            with urllib.request.urlopen(request, timeout=FETCH_S) as answer:  # noqa: S310 - as above
                body = answer.read(MAX_BYTES + 1)
                if len(body) > MAX_BYTES:
                    raise Rejected("unreadable_file", f"{self.url}: a document has at most {MAX_BYTES} bytes")
                self._text = body.decode("utf-8")
                self._etag = answer.headers.get("ETag", "")
        except urllib.error.HTTPError as e:
            if e.code != 304:
                raise Unavailable(f"{self.url} answers {e.code}") from e
        except UnicodeDecodeError as e:
            raise Rejected("unreadable_file", f"{self.url}: the document must be UTF-8") from e
        except OSError as e:
            raise Unavailable(f"{self.url} does not answer: {e}") from e
        return self._text

    def read(self) -> Gateway:
        return read_documents(loads(self._text, Path(urlsplit(self.url).path).name or "-"))


@dataclass
class Source:
    """What `supervisor` calls."""

    origin: Files | Url
    places: Places = field(default_factory=dict)
    extras: Extras = field(default_factory=Extras)
    _seen: object = None
    _error: SkyliftError | None = None

    def __call__(self) -> Snapshot | None:
        seen = self.origin.seen()
        if seen == self._seen:
            if self._error is not None:
                raise self._error
            return None
        self._seen, self._error = seen, None
        try:
            return compiled(placed(self.origin.read(), self.places), self.extras)
        except SkyliftError as e:
            self._error = e
            raise


def placed(gateway: Gateway, places: Places) -> Gateway:
    """The same gateway, its listeners where this machine wants them."""
    listeners = gateway.listeners or (ANYWHERE,)
    names = {listener.name for listener in listeners}
    for name in places:
        if name not in names:
            raise invalid("--listen", name, f"the configuration's listeners are {', '.join(sorted(names))}")
    return replace(gateway, listeners=tuple(_placed(listener, places) for listener in listeners))


def _placed(listener: Listener, places: Places) -> Listener:
    if listener.name not in places:
        return listener
    address, port = places[listener.name]
    return replace(listener, address=address, port=port)


def place(text: str) -> tuple[str, tuple[str, int]]:
    """`web=127.0.0.1:8080` taken apart."""
    name, _, where = text.partition("=")
    address, _, port = where.rpartition(":")
    if not name or not port.isdecimal() or not 0 < int(port) < 65536:
        raise invalid("--listen", text, "expected NAME=ADDRESS:PORT, as in web=127.0.0.1:8080")
    return name, (address or "127.0.0.1", int(port))


def source(words: Iterable[str], places: Places, extras: Extras) -> Callable[[], Snapshot | None]:
    """Of files and directories, or of one http(s) URL."""
    given = tuple(words)
    if any(word.startswith(("http://", "https://")) for word in given):
        if len(given) > 1:
            raise invalid("FILES", " ".join(given), "one URL, or files and directories")
        return Source(Url(given[0]), places, extras)
    for word in given:
        if not Path(word).exists():
            raise invalid("FILES", word, "no such file or directory")
    return Source(Files(tuple(map(Path, given))), places, extras)
