"""JSON in the one form that signed files have, read without a library.

Names ascend and stand once, nothing is between the tokens, numbers are whole and from 0, strings are ASCII
without quotes and without escapes but `\\n`. What is written otherwise is refused, so that no two readers can
read it differently. Runs on CPython and on MicroPython.
"""

try:  # noqa: SIM105 - contextlib is not there either
    from typing import Any
except ImportError:  # MicroPython has none, and evaluates no annotations
    pass

DEPTH = 16
DIGITS = 15
SIGNATURE = "signature_invalid"


class Refused(Exception):
    """`reason` is what the device reports; `rule` names what was broken (see `compact`)."""

    def __init__(self, reason: str, rule: str) -> None:
        super().__init__(reason + ": " + rule)
        self.reason = reason
        self.rule = rule


def value(body: bytes, at: int, depth: int) -> "tuple[Any, int]":
    """What stands there, and where it ends."""
    sign = body[at : at + 1]
    if depth >= DEPTH and sign in (b"{", b"["):
        raise Refused(SIGNATURE, "form: depth")
    if sign == b'"':
        return _string(body, at)
    if sign == b"{":
        return _object(body, at + 1, depth + 1)
    if sign == b"[":
        return _array(body, at + 1, depth + 1)
    if body[at : at + 4] == b"true":
        return True, at + 4
    if body[at : at + 5] == b"false":
        return False, at + 5
    return _digits(body, at)


def _object(body: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    last = None
    if body[at : at + 1] == b"}":
        return found, at + 1
    while True:
        expect(body, at, b'"')
        name, at = _string(body, at)
        if last is not None and name <= last:
            raise Refused(SIGNATURE, "form: names in order, each once")
        expect(body, at, b":")
        found[name], at = value(body, at + 1, depth)
        last = name
        if body[at : at + 1] == b"}":
            return found, at + 1
        expect(body, at, b",")
        at += 1


def _array(body: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    if body[at : at + 1] == b"]":
        return found, at + 1
    while True:
        item, at = value(body, at, depth)
        found.append(item)
        if body[at : at + 1] == b"]":
            return found, at + 1
        expect(body, at, b",")
        at += 1


def _string(body: bytes, at: int) -> tuple[str, int]:
    end = body.find(b'"', at + 1)
    raw = body[at + 1 : end]
    if end < 0 or min(raw or b" ") < 0x20 or max(raw or b" ") > 0x7E:
        raise Refused(SIGNATURE, "form: text")
    if raw.count(b"\\") != raw.count(b"\\n"):
        raise Refused(SIGNATURE, "form: escape")
    return raw.replace(b"\\n", b"\n").decode(), end + 1


def _digits(body: bytes, at: int) -> tuple[int, int]:
    end = at
    while end < len(body) and 0x30 <= body[end] <= 0x39:
        end += 1
    if not 0 < end - at <= DIGITS or (end - at > 1 and body[at] == 0x30):
        raise Refused(SIGNATURE, "form: number")
    return int(body[at:end]), end


def expect(body: bytes, at: int, what: bytes) -> None:
    if body[at : at + len(what)] != what:
        raise Refused(SIGNATURE, "form: JSON")


def table(found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise Refused(SIGNATURE, "form: kind")
    return found


def text(found: object) -> str:
    if not isinstance(found, str):
        raise Refused(SIGNATURE, "form: kind")
    return found


def number(found: object) -> int:
    if isinstance(found, bool) or not isinstance(found, int):
        raise Refused(SIGNATURE, "form: kind")
    return found
