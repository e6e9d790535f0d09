"""A condition as Envoy compares it: one route match for each way in which the condition can hold.

Envoy's match is an "and" of comparisons, so a condition becomes an "or" of "and"s (`ways`). What a listener
decides by itself (its port, its scheme) is settled here. Comparisons that Envoy's match has no word for are
made on headers of ours, which a listener sets before it looks for a route (`STAMPS`): the path without its
query, the socket's peer, the server name.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, ip_network
from itertools import product

from skylift.gateway.conditions import All, AnyOf, Condition, Not, Part, Test
from skylift.gateway.envoy.snapshot import Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.text import Kind, Text

MAX_WAYS = 256  # a rule with more is a rule nobody can read
PATH, PEER, SNI, QUERY = "x-sl-path", "x-sl-peer", "x-sl-sni", "x-sl-query-"
STAMPS = {
    PATH: "%PATH(NQ)%",
    PEER: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    SNI: "%REQUESTED_SERVER_NAME%",
}


@dataclass(frozen=True, slots=True)
class Literal:
    """One test, or its opposite."""

    test: Test
    wanted: bool = True


Way = tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """What a listener knows before a request comes."""

    port: int
    scheme: str


def ways(condition: Condition, wanted: bool = True) -> Iterator[Way]:
    """The disjunctive normal form, negations pushed down to the tests."""
    match condition:
        case Test():
            yield (Literal(condition, wanted),)
        case Not(of):
            yield from ways(of, not wanted)
        case All(of) | AnyOf(of):
            if isinstance(condition, All) == wanted:
                for parts in product(*(tuple(ways(each, wanted)) for each in of)):
                    yield tuple(literal for part in parts for literal in part)
            else:
                for each in of:
                    yield from ways(each, wanted)


def settled(way: Way, place: Place) -> Way | None:
    """The way without what the listener decides; None where it decides against."""
    known = {Part.PORT: str(place.port), Part.SCHEME: place.scheme}
    left: list[Literal] = []
    for literal in way:
        value = known.get(literal.test.part)
        if value is None:
            left.append(literal)
        elif any(text.matches(value) for text in literal.test.texts) != literal.wanted:
            return None
    return tuple(left)


@dataclass(frozen=True, slots=True)
class Match:
    """One way in Envoy's words. `prefix`: what every path that it takes begins with. `hosts`: the exact hosts
    it is for, which `json` does not repeat, or None for any."""

    json: Json
    prefix: str
    hosts: frozenset[str] | None
    host_header: Json | None = None  # the same, for a table that does not tell hosts apart

    @property
    def with_host(self) -> Json:
        if self.host_header is None:
            return self.json
        return {**self.json, "headers": [*self.json.get("headers", ()), self.host_header]}

    def with_header(self, compared: Json) -> "Match":
        """The same, where a header is such too."""
        return replace(self, json={**self.json, "headers": [*self.json.get("headers", ()), compared]})


def matches(condition: Condition, place: Place, extra: Way = ()) -> list[Match]:
    """Every way in which a request at this listener can pass the condition. Raises Refused where Envoy could
    not be told."""
    found = []
    for number, way in enumerate(ways(condition)):
        if number >= MAX_WAYS:
            raise _refused(condition, f"a rule has at most {MAX_WAYS} ways to match once it is spread out")
        rest = settled((*way, *extra), place)
        if rest is not None:
            found.append(_match(rest))
    return found


def _match(way: Way) -> Match:
    paths = [literal for literal in way if literal.test.part is Part.PATH]
    hosts = [literal for literal in way if literal.test.part is Part.HOST]
    headers = [literal for literal in way if literal.test.part in _ON_HEADERS]
    queries = [literal for literal in way if literal.test.part is Part.QUERY]

    exact = _exact_hosts(hosts)
    inline = () if exact is not None else hosts
    first = next((p for p in paths if p.wanted and len(p.test.texts) == 1), None)
    specifier = _path_specifier(first.test.texts[0]) if first else {"prefix": "/"}
    further = [_on_header(PATH, p) for p in paths if p is not first]
    json: Json = {
        **specifier,
        "headers": [
            *further,
            *(_host(h) for h in inline),
            *(_ON_HEADERS[h.test.part](h) for h in headers),
            *(_query(q) for q in queries),
        ],
    }
    return Match(
        {name: value for name, value in json.items() if value},
        _common_prefix([p.test for p in paths if p.wanted]),
        exact,
        _host(hosts[0]) if exact is not None else None,
    )


def _common_prefix(tests: Iterable[Test]) -> str:
    """The longest of the prefixes that the tests ask for; regexes ask for "/"."""
    known = [
        text.value
        for test in tests
        if len(test.texts) == 1
        for text in test.texts
        if text.kind in (Kind.EXACT, Kind.PREFIX, Kind.SEGMENT) and not text.ignore_case
    ]
    return max(known, key=len, default="/")


def _exact_hosts(hosts: list[Literal]) -> frozenset[str] | None:
    if len(hosts) != 1 or not hosts[0].wanted or any(t.kind is not Kind.EXACT for t in hosts[0].test.texts):
        return None
    return frozenset(text.value.lower() for text in hosts[0].test.texts)


def _path_specifier(text: Text) -> Json:
    if not text.ignore_case:
        if text.kind is Kind.EXACT:
            return {"path": text.value}
        if text.kind is Kind.PREFIX:
            return {"prefix": text.value}
    return {"safe_regex": {"regex": full_regex(text)}}


# --- a text as a regex over the whole value -------------------------------------------------------------


def full_regex(text: Text) -> str:
    """RE2's words for a comparison, to be matched against a whole value."""
    value = re.escape(text.value)
    plain = {
        Kind.EXACT: value,
        Kind.PREFIX: f"{value}.*",
        Kind.SEGMENT: rf"{re.escape(text.value.rstrip('/'))}(?:/.*)?" if text.value != "/" else ".*",
        Kind.SUFFIX: f".+{value}",
        Kind.ONE_LABEL: rf"[^.]+{value}",
        Kind.PRESENT: ".*",
        Kind.REGEX_FULL: f"(?:{text.value})",
        Kind.REGEX_START: f"(?:{text.value}).*",
        Kind.REGEX_SEARCH: f"(?:.*?)(?:{text.value})(?:.*)",
    }
    body = network_regex(text.value) if text.kind is Kind.NETWORK else plain[text.kind]
    return f"(?{'i' if text.ignore_case else ''}s){body}"


def network_regex(network: str) -> str:
    """An IPv4 network over the text of an address. IPv6: single addresses only. Raises Refused."""
    parsed = ip_network(network, strict=False)
    if not isinstance(parsed, IPv4Network):
        if parsed.num_addresses == 1:
            return re.escape(str(parsed.network_address))
        raise Refused(
            [Problem("", "ClientIP", "an IPv6 network cannot choose a route, only an address", network)]
        )
    octets, bits = str(parsed.network_address).split("."), parsed.prefixlen
    parts = []
    for number, octet in enumerate(octets):
        own = min(8, max(0, bits - 8 * number))
        low = int(octet)
        choices = range(low, low + 2 ** (8 - own))
        parts.append(r"\d+" if own == 0 else octet if own == 8 else f"(?:{'|'.join(map(str, choices))})")
    return r"\.".join(parts)


# --- headers ------------------------------------------------------------------------------------------------


def _on_header(name: str, literal: Literal) -> Json:
    """A comparison on a header; absent is "no" (and "yes" to its opposite)."""
    texts = literal.test.texts
    if len(texts) == 1 and texts[0].kind is Kind.PRESENT:
        compared: Json = {"present_match": True}
    elif len(texts) == 1 and texts[0].kind in _STRING_WORDS:
        word = _STRING_WORDS[texts[0].kind]
        compared = {"string_match": {word: texts[0].value, **_case(texts[0])}}
    else:
        compared = {"string_match": {"safe_regex": {"regex": "|".join(full_regex(text) for text in texts)}}}
    missing = {} if "present_match" in compared else {"treat_missing_header_as_empty": True}
    inverted = {} if literal.wanted else {"invert_match": True, **missing}
    return {"name": name, **compared, **inverted}


_STRING_WORDS = {Kind.EXACT: "exact", Kind.PREFIX: "prefix"}


def _case(text: Text) -> Json:
    return {"ignore_case": True} if text.ignore_case else {}


def _host(literal: Literal) -> Json:
    """A host is compared without its port and without regard to case."""
    bodies = (full_regex(Text(text.kind, text.value)).removeprefix("(?s)") for text in literal.test.texts)
    regex = rf"(?is)(?:{'|'.join(bodies)})\.?(?::\d+)?"
    inverted = {} if literal.wanted else {"invert_match": True}
    return {"name": ":authority", "string_match": {"safe_regex": {"regex": regex}}, **inverted}


_ON_HEADERS = {
    Part.METHOD: lambda literal: _on_header(":method", literal),
    Part.HEADER: lambda literal: _on_header(literal.test.name.lower(), literal),
    Part.CLIENT: lambda literal: _on_header(PEER, literal),
    Part.SNI: lambda literal: _on_header(SNI, literal),
}


# --- query parameters ---------------------------------------------------------------------------------


def _query(literal: Literal) -> Json:
    """Envoy's own word for parameters sees the first value of a name only, and knows no "not": the whole path
    is looked through instead. Regular expressions do not fit inside another: they see the first value, as a
    header of ours."""
    if any(text.kind not in _VALUES or text.ignore_case for text in literal.test.texts):
        return _on_header(query_stamp(literal.test.name), literal)
    values = "|".join(_VALUES[text.kind](re.escape(text.value)) for text in literal.test.texts)
    regex = rf"[^?]*\?(?:.*&)?{re.escape(literal.test.name)}(?:{values})(?:&.*)?"
    inverted = {} if literal.wanted else {"invert_match": True}
    return {"name": ":path", "string_match": {"safe_regex": {"regex": regex}}, **inverted}


_VALUES: Mapping[Kind, Callable[[str], str]] = {
    Kind.EXACT: lambda value: f"={value}" if value else "=?",
    Kind.PREFIX: lambda value: f"={value}[^&]*",
    Kind.SUFFIX: lambda value: f"=[^&]+{value}",
    Kind.PRESENT: lambda value: "(?:=[^&]*)?",
}


def query_stamp(name: str) -> str:
    return f"{QUERY}{name.lower()}"


def stamps_used(matches_: Iterable[Match]) -> dict[str, str]:
    """Which headers of ours these matches look at, with Envoy's format for each."""
    names = {header["name"] for m in matches_ for header in m.json.get("headers", ())}
    known = {name: STAMPS[name] for name in names & set(STAMPS)}
    asked = {name for name in names if name.startswith(QUERY)}
    return known | {name: f"%QUERY_PARAM({name.removeprefix(QUERY)})%" for name in asked}


def _refused(condition: Condition, rule: str) -> Refused:
    return Refused([Problem("", "rule", rule, str(condition))])
