"""Live groups: a small language over what the server knows of a device.

    device_type = sensor-v2 and label.region in (eu, us) and not current_version >= 2.0
    device_id ~ "greenhouse-*" or label.owner = "Ada Lovelace"

Fields: `device_id`, `device_type`, `current_version`, `config_version`, `label.NAME`. Operators: `=`,
`!=`, `<`, `<=`, `>`, `>=` (versions compare number by number: 1.10 is above 1.9), `~` (glob), `in (...)`.
A field that a device does not have equals nothing and differs from everything. Length, depth and number
of terms are bounded, so that no query runs for ever.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Any

from skylift.core.errors import Rejected

MAX_LENGTH = 2000
MAX_TERMS = 64
MAX_DEPTH = 16
FIELDS = ("device_id", "device_type", "current_version", "config_version")

_TOKEN = re.compile(r'\s*(?:"([^"\n]*)"|(<=|>=|!=|[=<>~(),])|([A-Za-z0-9_.*?+-]+))')
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


@dataclass(frozen=True, slots=True)
class Compare:
    """`field operator values`; only `in` has more than one value."""

    field: str
    operator: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not:
    of: "Query"


@dataclass(frozen=True, slots=True)
class And:
    of: tuple["Query", ...]


@dataclass(frozen=True, slots=True)
class Or:
    of: tuple["Query", ...]


Query = Compare | Not | And | Or


@dataclass(frozen=True, slots=True)
class Facts:
    """What a query may look at; built from a device row."""

    device_id: str
    device_type: str
    current_version: str | None
    config_version: str | None
    labels: Mapping[str, str]

    def get(self, field: str) -> str | None:
        if field.startswith("label."):
            return self.labels.get(field[6:])
        value: str | None = getattr(self, field)
        return value


def matches(query: Query, facts: Facts) -> bool:
    """Whether the device with these facts belongs to the query."""
    match query:
        case Compare(field, operator, values):
            return holds(operator, facts.get(field), values)
        case Not(of):
            return not matches(of, facts)
        case And(parts):
            return all(matches(part, facts) for part in parts)
        case Or(parts):
            return any(matches(part, facts) for part in parts)


def settled(query: Query, field: str, value: str | None) -> Query:
    """The query for devices of which this field is known: what remains asks for the other fields."""
    match query:
        case Compare(asked, operator, values) if asked == field:
            return And(()) if holds(operator, value, values) else Or(())
        case Compare():
            return query
        case Not(of):
            return Not(settled(of, field, value))
        case And(parts):
            return And(tuple(settled(part, field, value) for part in parts))
        case Or(parts):
            return Or(tuple(settled(part, field, value) for part in parts))


def holds(operator: str, have: str | None, values: tuple[str, ...]) -> bool:
    """Whether a device that has this value (None: has none) passes the comparison."""
    if operator == "!=":
        return have != values[0]
    if have is None:
        return False
    if operator in ("=", "in"):
        return have in values
    if operator == "~":
        return fnmatchcase(have, values[0])
    return _ORDER[operator](version_key(have), version_key(values[0]))


@lru_cache(4096)
def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts versions as people mean them: numbers as numbers, a pre-release below its release."""
    release, _, pre = version.partition("-")
    key = [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _parts(release)]
    tail = [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _parts(pre)]
    return (*key, (-1, 0, ""), *tail) if pre else (*key, (0, 0, ""))


def _parts(text: str) -> list[str]:
    return re.findall(r"[0-9]{1,18}|[^0-9.+_-]+", text)


@lru_cache(1024)
def parse(text: str) -> Query:
    """The query in `text`. Raises `Rejected` that names the place and what was expected there."""
    if len(text) > MAX_LENGTH:
        raise _bad(text, f"at most {MAX_LENGTH} characters, this has {len(text)}")
    return _Parser(text).whole()


def _bad(text: str, rule: str) -> Rejected:
    return Rejected("bad_query", f"query: {rule}", field="query", value=text[:200], rule=rule)


class _Parser:
    """Recursive descent over the tokens of one query; lives for one call."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._scan()
        self.at = 0
        self.terms = 0

    def _scan(self) -> list[tuple[str, str, int]]:
        tokens, at = [], 0
        end = len(self.text.rstrip())
        while at < end:
            found = _TOKEN.match(self.text, at)
            if not found:
                raise _bad(self.text, f"at character {at + 1}: cannot read {self.text[at:].strip()[:12]!r}")
            kind = ("text", "sign", "word")[(found.lastindex or 1) - 1]
            tokens.append((kind, found.group(found.lastindex or 1), found.start()))
            at = found.end()
        return tokens

    def whole(self) -> Query:
        query = self.either(0)
        if self.at < len(self.tokens):
            raise self.expected("'and', 'or' or the end")
        return query

    def either(self, depth: int) -> Query:
        parts = [self.both(depth)]
        while self.word("or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self, depth: int) -> Query:
        parts = [self.one(depth)]
        while self.word("and"):
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def one(self, depth: int) -> Query:
        if depth > MAX_DEPTH:
            raise _bad(self.text, f"at most {MAX_DEPTH} levels of 'not' and parentheses")
        if self.word("not"):
            return Not(self.one(depth + 1))
        if self.sign("("):
            query = self.either(depth + 1)
            self.need(")")
            return query
        return self.comparison()

    def comparison(self) -> Query:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise _bad(self.text, f"at most {MAX_TERMS} comparisons")
        field = self.field()
        if self.word("in"):
            return Compare(field, "in", self.listed())
        for operator in ("<=", ">=", "!=", "=", "<", ">", "~"):
            if self.sign(operator):
                return Compare(field, operator, (self.value(),))
        raise self.expected("one of = != < <= > >= ~ in")

    def field(self) -> str:
        kind, text, _ = self.peek()
        if kind != "word" or not (text in FIELDS or (text.startswith("label.") and len(text) > 6)):
            raise self.expected(f"one of {', '.join(FIELDS)}, label.NAME")
        self.at += 1
        return text

    def listed(self) -> tuple[str, ...]:
        self.need("(")
        values = [self.value()]
        while self.sign(","):
            values.append(self.value())
        self.need(")")
        return tuple(values)

    def value(self) -> str:
        kind, text, _ = self.peek()
        if kind not in ("word", "text"):
            raise self.expected("a value")
        self.at += 1
        return text

    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "", len(self.text))

    def word(self, text: str) -> bool:
        return self.take("word", text)

    def sign(self, text: str) -> bool:
        return self.take("sign", text)

    def take(self, kind: str, text: str) -> bool:
        found = self.peek()[:2] == (kind, text)
        self.at += found
        return found

    def need(self, sign: str) -> None:
        if not self.sign(sign):
            raise self.expected(f"{sign!r}")

    def expected(self, what: str) -> Rejected:
        kind, text, at = self.peek()
        found = "the end" if kind == "end" else repr(text)
        return _bad(self.text, f"at character {at + 1}: expected {what}, found {found}")
