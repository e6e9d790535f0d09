"""Traefik's rules: ``Host(`a.example`) && (PathPrefix(`/x`) || !Method("GET"))`` into a condition.

    or    := and ("||" and)*
    and   := unary ("&&" unary)*
    unary := "!" unary | "(" or ")" | Name "(" text ("," text)* ")"

Texts are Go's: in backticks as they are, in double quotes with escapes. A rule has at most 4,000 characters
and 64 levels of parentheses, so that reading one is short.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from skylift.gateway.conditions import ALWAYS, All, AnyOf, Condition, Not, Part, Test
from skylift.gateway.errors import nearest
from skylift.gateway.request import normal_path
from skylift.gateway.text import Kind, Text, is_network, regex_fault

MAX_RULE = 4000
MAX_DEPTH = 64
_TOKEN = re.compile(
    r"""\s*(?:(?P<sign>&&|\|\||[!(),])|(?P<name>[A-Za-z]+)|`(?P<raw>[^`]*)`|"(?P<quoted>(?:[^"\\]|\\.)*)")"""
)


class RuleFault(ValueError):
    """What is wrong with a rule, as a sentence."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # sign, name, text
    value: str
    at: int


def parse(rule: str) -> Condition:
    """The condition a rule is; `RuleFault` where it is none."""
    if len(rule) > MAX_RULE:
        raise RuleFault(f"a rule has at most {MAX_RULE} characters, this one {len(rule)}")
    reader = _Reader(_tokens(rule), rule)
    found = reader.either(0)
    if reader.left:
        raise RuleFault(f"nothing was expected at {reader.here()}")
    return found


def _tokens(rule: str) -> list[Token]:
    found, at = [], 0
    while rule[at:].strip():
        match = _TOKEN.match(rule, at)
        if match is None:
            rest = rule[at:].strip()
            hint = ": texts stand in backticks or double quotes" if rest.startswith("'") else ""
            raise RuleFault(f"not understood at {rest[:20]!r}{hint}")
        kind = str(match.lastgroup)
        value = str(match[kind])
        if kind == "quoted":
            value = _unescaped(value)
        start = match.start(kind)
        found.append(Token("text" if kind in ("raw", "quoted") else kind, value, start))
        at = match.end()
    if not found:
        raise RuleFault("it is empty")
    return found


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def _unescaped(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        if found[1]:
            return chr(int(found[1], 16))
        if found[2] not in _ESCAPES:
            raise RuleFault(f"\\{found[2]} is no escape of a text in double quotes; backticks need none")
        return _ESCAPES[found[2]]

    return re.sub(r"\\(?:x([0-9a-fA-F]{2})|(.))", one, text)


class _Reader:
    """The tokens, read from left to right."""

    def __init__(self, tokens: list[Token], rule: str) -> None:
        self.left = tokens[::-1]
        self.rule = rule

    def here(self) -> str:
        return repr(self.rule[self.left[-1].at :][:20]) if self.left else "the end"

    def sees(self, sign: str) -> bool:
        return bool(self.left) and self.left[-1].kind == "sign" and self.left[-1].value == sign

    def take(self, sign: str) -> bool:
        if self.sees(sign):
            self.left.pop()
            return True
        return False

    def must(self, sign: str) -> None:
        if not self.take(sign):
            raise RuleFault(f"{sign} was expected at {self.here()}")

    def either(self, depth: int) -> Condition:
        found = [self.both(depth)]
        while self.take("||"):
            found.append(self.both(depth))
        return found[0] if len(found) == 1 else AnyOf(tuple(found))

    def both(self, depth: int) -> Condition:
        found = [self.unary(depth)]
        while self.take("&&"):
            found.append(self.unary(depth))
        return found[0] if len(found) == 1 else All(tuple(found))

    def unary(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise RuleFault(f"parentheses and ! are nested at most {MAX_DEPTH} deep")
        if self.take("!"):
            return Not(self.unary(depth + 1))
        if self.take("("):
            found = self.either(depth + 1)
            self.must(")")
            return found
        if not self.left or self.left[-1].kind != "name":
            raise RuleFault(f"a matcher such as PathPrefix(`/api`) was expected at {self.here()}")
        return self.call(self.left.pop().value)

    def call(self, name: str) -> Condition:
        self.must("(")
        texts = [self.text(name)]
        while self.take(","):
            texts.append(self.text(name))
        self.must(")")
        return _matcher(name, texts)

    def text(self, name: str) -> str:
        if not self.left or self.left[-1].kind != "text":
            raise RuleFault(f"{name} takes texts in backticks or double quotes, at {self.here()}")
        return self.left.pop().value


# --- matchers ------------------------------------------------------------------------------------------


def _matcher(name: str, texts: list[str]) -> Condition:
    known = _SPELLED.get(name)
    if known is None:
        hint = nearest(name, MATCHERS)
        raise RuleFault(f"there is no matcher {name}" + (f" (did you mean {hint}?)" if hint else ""))
    low, high, make = MATCHERS[known]
    if not low <= len(texts) <= high:
        count = f"{low}" if low == high else f"{low} or {high}"
        version = "; several values were version 2's, now they are joined by ||" if len(texts) > high else ""
        raise RuleFault(f"{known} takes {count} text{'s' * (high > 1)}, not {len(texts)}{version}")
    return make(*texts)


def _host(value: str) -> Condition:
    host = value.lower().rstrip(".")
    if not host or not host.isascii():
        raise RuleFault(f"Host {value!r}: a host is ASCII, international names in punycode")
    if host == "*":
        return ALWAYS
    if host.startswith("*."):
        return Test(Part.HOST, (Text(Kind.ONE_LABEL, host[1:]),))
    if "*" in host or "{" in host:
        raise RuleFault(f"Host {value!r}: * stands for one label at the left (*.example.com)")
    return Test(Part.HOST, (Text(Kind.EXACT, host),))


def _regex(matcher: str, pattern: str) -> Text:
    fault = regex_fault(pattern)
    if fault:
        raise RuleFault(f"{matcher} {pattern!r}: {fault}")
    return Text(Kind.REGEX_SEARCH, pattern)


def literal_path(value: str) -> str:
    """A path in a configuration, written as the path of a request is: what is not ASCII is encoded."""
    return quote(value, safe="/:?#[]@!$&'()*+,;=%-._~")


def _path(kind: Kind) -> Callable[[str], Condition]:
    def made(value: str) -> Condition:
        if not value.startswith("/"):
            raise RuleFault(f"path {value!r}: a path begins with /")
        path = literal_path(value)
        if normal_path(path) != path:
            raise RuleFault(f"path {value!r} matches nothing: requests have it as {normal_path(path)}")
        return Test(Part.PATH, (Text(kind, path),))

    return made


def _header(name: str, text: Text) -> Condition:
    if name.lower() == "host":
        return Test(Part.HOST, (text,))
    return Test(Part.HEADER, (text,), name)


def _client(value: str) -> Condition:
    if not is_network(value):
        raise RuleFault(f"ClientIP {value!r}: it must be an address or a network such as 10.0.0.0/8")
    return Test(Part.CLIENT, (Text(Kind.NETWORK, value),))


MATCHERS: Mapping[str, tuple[int, int, Callable[..., Condition]]] = {
    "Host": (1, 1, _host),
    "HostRegexp": (1, 1, lambda re: Test(Part.HOST, (_regex("HostRegexp", re),))),
    "Path": (1, 1, _path(Kind.EXACT)),
    "PathPrefix": (1, 1, _path(Kind.PREFIX)),
    "PathRegexp": (1, 1, lambda re: Test(Part.PATH, (_regex("PathRegexp", re),))),
    "Method": (1, 1, lambda name: Test(Part.METHOD, (Text(Kind.EXACT, name.upper()),))),
    "Header": (2, 2, lambda name, value: _header(name, Text(Kind.EXACT, value))),
    "HeaderRegexp": (2, 2, lambda name, re: _header(name, _regex("HeaderRegexp", re))),
    "Query": (1, 2, lambda name, value="": Test(Part.QUERY, (Text(Kind.EXACT, value),), name)),
    "QueryRegexp": (1, 2, lambda name, re="^$": Test(Part.QUERY, (_regex("QueryRegexp", re),), name)),
    "ClientIP": (1, 1, _client),
}
# Each name as it is, in lower case, in upper case, and as a title.
_SPELLED = {
    spelled: name for name in MATCHERS for spelled in (name, name.lower(), name.upper(), name.title())
}
