"""The two requests that a fleet makes all day, read from the bytes of one piece. Pure.

The plain form is an expression: one whole HTTP/1.1 request and nothing behind it, each header that matters
once and as everybody writes it, nothing that changes what a body is. Whatever else (another path, a header in
two lines, a transfer encoding, two requests in one piece) is None, and is read by the HTTP server, which
knows every form. Nothing is refused here, and what is read here is read the same there.

One expression, because each header looked at in Python costs as much as the whole of it.
"""

import re
from typing import NamedTuple

CHECK, STATUS = "/api/updates/check", "/api/updates/status"
MAX_HEAD = 8192  # bytes; an ordinary check's are 300
# The first that fits is taken; the last is any header that says nothing of the request's form or answer.
_HEADERS = rb"""
    (?:
        (?: [Aa]uthorization:\ Bearer\ (?P<token>[!-~]+)
          | [Cc]onnection:\ (?P<connection>close|[Kk]eep-[Aa]live)
          | [Ii]f-[Nn]one-[Mm]atch:\ (?P<tag>[!-~]+)
          | [Ss]kylift-[Ss]ignature:\ (?P<signature>[!-~]+)
          | [Cc]ontent-[Tt]ype:\ (?P<type>application/json)
          | [Cc]ontent-[Ll]ength:\ (?P<length>[0-9]{1,9})
          | (?!(?i:authorization|connection|content-|expect|if-none-match|skylift-|trailer|transfer-|upgrade
                |x-forwarded-client-cert|x-skylift-))
            [A-Za-z0-9_-]+:[\ \t!-~]*
        )\r\n
    )+\r\n
"""
_PLAIN = re.compile(
    rb"(?:GET\ /api/updates/check\?(?P<query>[!-~]+)|POST\ /api/updates/status)\ HTTP/1\.1\r\n" + _HEADERS,
    re.VERBOSE,
)
_PAIR = re.compile(r"(?:^|&)([a-z0-9_]+)=([^&%+#]*)(?=&|$)")
_ONCE = (b"uthorization:", b"onnection:", b"atch:", b"ignature:", b"ype:", b"ength:")


class Plain(NamedTuple):
    """`query` of a check, else "", and `body` of a report, else empty. `tag` is If-None-Match as it came."""

    is_check: bool
    query: str
    body: bytes
    token: bytes
    tag: bytes | None
    closes: bool
    signature: bytes = b""  # of the body


def read(data: bytes, max_body: int) -> Plain | None:
    """The request that `data` is, where it is plain."""
    found = _PLAIN.match(data, 0, MAX_HEAD)
    if found is None:
        return None
    query, token, connection, tag, signature, kind, length = found.groups()
    end = found.end()
    if token is None or not _come_once(data, end):
        return None
    if query is not None:
        plain = length is None and end == len(data)
    else:
        plain = kind is not None and length is not None and int(length) == len(data) - end <= max_body
    if not plain:
        return None
    asked = query.decode("ascii") if query is not None else ""
    return Plain(query is not None, asked, data[end:], token, tag, connection == b"close", signature or b"")


def _come_once(data: bytes, end: int) -> bool:
    """Of headers that come twice the expression sees the last. (A longer header that ends alike is no plain
    request either: no harm.)"""
    for name in _ONCE:  # noqa: SIM110 - a generator costs more than the counting
        if data.count(name, 0, end) > 1:
            return False
    return True


def pairs(query: str) -> dict[str, str] | None:
    """The parameters of a query, where each comes once and nothing is escaped."""
    found = dict(_PAIR.findall(query))
    return found if len(found) == query.count("&") + 1 else None
