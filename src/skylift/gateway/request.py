"""A request on paper, as a listener sees it: normalised where every dialect normalises.

The path is normalised before anything looks at it (percent-encoded unreserved characters decoded, hex in
upper case, dot segments resolved, slashes merged); the data plane does the same, so that what was matched is
what is sent on.
"""

import re
import shlex
import string
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode, urlsplit

from skylift.core.errors import invalid

_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Request:
    """`path` without query, normalised; `host` in lower case without port; header names as they came."""

    method: str = "GET"
    path: str = "/"
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    host: str = "localhost"
    port: int = 80
    scheme: str = "http"
    client: str = "192.0.2.1"
    sni: str = ""
    body: bytes = b""

    def header_values(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.headers if key.lower() == name.lower())

    def header(self, name: str) -> str | None:
        found = self.header_values(name)
        return found[0] if found else None

    @property
    def target(self) -> str:
        """Path and query, as on the request line."""
        return self.path + (f"?{urlencode(self.query)}" if self.query else "")

    def but(self, **changes: object) -> "Request":
        return replace(self, **changes)  # type: ignore[arg-type] # the names are the fields of this class


def normal_path(path: str) -> str:
    """The path as every dialect compares it."""
    decoded = re.sub(r"%([0-9A-Fa-f]{2})", _decode, path)
    merged = re.sub(r"/{2,}", "/", decoded)
    kept: list[str] = []
    segments = merged.split("/")[1:]
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        if segment in (".", ".."):
            if segment == ".." and kept:
                kept.pop()
            if last:
                kept.append("")
        else:
            kept.append(segment)
    return "/" + "/".join(kept)


def _decode(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else f"%{found[1].upper()}"


def make(
    method: str = "GET",
    url: str = "/",
    headers: tuple[tuple[str, str], ...] = (),
    *,
    client: str = "192.0.2.1",
    port: int | None = None,
    body: bytes = b"",
) -> Request:
    """A request from what a person writes: a path or a whole URL, and headers."""
    parts = urlsplit(url if url.startswith(("http://", "https://")) else f"http://localhost{url}")
    scheme = parts.scheme or "http"
    given = next((value for key, value in headers if key.lower() == "host"), parts.netloc)
    host, _, host_port = given.partition(":") if not given.startswith("[") else (given, "", "")
    return Request(
        method=method,
        path=normal_path(parts.path or "/"),
        query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
        headers=tuple((key, value) for key, value in headers if key.lower() != "host"),
        host=host.lower().rstrip("."),
        port=port or (int(host_port) if host_port.isdecimal() else 443 if scheme == "https" else 80),
        scheme=scheme,
        client=client,
        sni=host.lower() if scheme == "https" else "",
        body=body,
    )


def parse(line: str, client: str = "192.0.2.1") -> Request:
    """A request from one line, curl's words allowed: `GET /api/users?x=1 -H 'Accept: text/html' -d '{}'`."""
    try:
        words = shlex.split(line)
    except ValueError as e:
        raise invalid("request", line, f"it must be words as a shell reads them: {e}") from None
    method, url, headers, body = "", "", [], b""
    while words:
        word = words.pop(0)
        if word in ("-H", "--header", "-X", "--request", "-d", "--data", "--client"):
            if not words:
                raise invalid("request", line, f"{word} needs a value after it")
            value = words.pop(0)
            if word in ("-H", "--header"):
                headers.append(_header(value))
            elif word in ("-X", "--request"):
                method = value.upper()
            elif word == "--client":
                client = value
            else:
                body = value.encode()
        elif word.startswith(("/", "http://", "https://")):
            url = word
        elif word != "curl" and word.isalpha() and word.isupper():
            method = word
        elif word != "curl":
            raise invalid("request", word, "expected a METHOD, a /path or URL, -H 'Name: value', -d BODY")
    if not url:
        raise invalid("request", line, "it must have a path (/api/users) or a URL")
    return make(method or ("POST" if body else "GET"), url, tuple(headers), client=client, body=body)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not _TOKEN.fullmatch(name.strip()):
        raise invalid("request", text, "a header is written 'Name: value'")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise invalid("request", text, "a header's value has no control characters")
    return name.strip(), value.strip()
