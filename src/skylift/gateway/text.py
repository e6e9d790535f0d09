"""How a piece of a request is compared with a piece of a configuration.

One noun, `Text`, serves paths, hosts, headers, query values and client addresses; what differs between the
dialects (Kong anchors a regex at the start, Traefik nowhere; Kong's `*.example.com` is any number of labels,
Traefik's exactly one) is the `Kind`. Regular expressions are RE2's language: what RE2 refuses (look-around,
back-references, possessive quantifiers) is refused here too, because the data plane could not run it, and
what RE2 allows cannot explode there.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address, ip_network

MAX_REGEX = 1000  # characters; RE2 programs grow with it, and no route needs more


class Kind(StrEnum):
    """The ways of comparing. `consumed` tells how much of the value a PREFIX or regex took."""

    EXACT = "is"
    PREFIX = "begins with"  # raw characters: /api takes /apix too, in both dialects
    SEGMENT = "is or is under"  # /api takes /api and /api/x, not /apix: the native form's prefix
    SUFFIX = "ends with"
    ONE_LABEL = "is one label under"  # value ".example.com"
    REGEX_START = "begins with a match of"
    REGEX_SEARCH = "contains a match of"
    REGEX_FULL = "matches"
    PRESENT = "is present"
    NETWORK = "is in"


REGEXES = frozenset({Kind.REGEX_START, Kind.REGEX_SEARCH, Kind.REGEX_FULL})


@dataclass(frozen=True, slots=True)
class Text:
    """One comparison. `ignore_case` holds for every kind but NETWORK."""

    kind: Kind
    value: str = ""
    ignore_case: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.value}".rstrip()

    def matches(self, value: str) -> bool:
        return self.consumed(value) is not None

    def consumed(self, value: str) -> int | None:
        """How many characters from the left the comparison used up; None where it fails."""
        if self.kind in REGEXES:
            found = self.regex_match(value)
            return found.end() if found else None
        if self.kind is Kind.NETWORK:
            return len(value) if in_network(value, self.value) else None
        if self.ignore_case:
            return _plain(self.kind, self.value.lower(), value.lower())
        return _plain(self.kind, self.value, value)

    def regex_match(self, value: str) -> re.Match[str] | None:
        """The match of a regex kind, with its groups."""
        compiled = compile_regex(self.value, self.ignore_case)
        if self.kind is Kind.REGEX_START:
            return compiled.match(value)
        return compiled.fullmatch(value) if self.kind is Kind.REGEX_FULL else compiled.search(value)


def _one_label(value: str, wanted: str) -> bool:
    label = value.removesuffix(wanted)
    return label not in ("", value) and "." not in label


_HOLDS: Mapping[Kind, Callable[[str, str], bool]] = {
    Kind.EXACT: lambda value, wanted: value == wanted,
    Kind.PREFIX: lambda value, wanted: value.startswith(wanted),
    Kind.SEGMENT: lambda value, wanted: value == wanted or value.startswith(wanted.rstrip("/") + "/"),
    Kind.SUFFIX: lambda value, wanted: value.endswith(wanted) and value != wanted,
    Kind.ONE_LABEL: _one_label,
    Kind.PRESENT: lambda value, wanted: True,
}


def _plain(kind: Kind, wanted: str, value: str) -> int | None:
    """The kinds that are neither regex nor network."""
    if not _HOLDS[kind](value, wanted):
        return None
    return min(len(wanted), len(value)) if kind in (Kind.PREFIX, Kind.SEGMENT) else len(value)


def in_network(address: str, network: str) -> bool:
    """Whether an address is in a CIDR range; an address that is none is in no range."""
    try:
        return ip_address(address) in ip_network(network, strict=False)
    except ValueError:
        return False


def subnet_of(address: str, ipv6_prefix: int) -> str:
    """The first address of the subnet that an IPv6 address is in; any other text as it stands."""
    if ":" not in address or ipv6_prefix >= 128:
        return address
    try:
        return str(ip_network(f"{address}/{ipv6_prefix}", strict=False).network_address)
    except ValueError:
        return address


NOBODY = "::/128"  # the address that no client has


def over_subnets(networks: tuple[str, ...], ipv6_prefix: int) -> tuple[str, ...]:
    """The same question to whole addresses as these networks are to the first ones of their subnets."""
    found = []
    for network in networks:
        parsed = ip_network(network, strict=False)
        if parsed.version == 4 or parsed.prefixlen <= ipv6_prefix:
            found.append(network)
            continue
        wide = parsed.supernet(new_prefix=ipv6_prefix)
        if wide.network_address == parsed.network_address:
            found.append(str(wide))
    return tuple(found) or ((NOBODY,) if networks else ())


def is_network(text: str) -> bool:
    """Whether it is an address or a CIDR range."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


@lru_cache(4096)
def compile_regex(pattern: str, ignore_case: bool = False) -> re.Pattern[str]:
    """RE2's pattern in Python's words: names `(?<n>...)` become `(?P<n>...)`, `\\z` becomes `\\Z`."""
    python = re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", pattern).replace(r"\z", r"\Z")
    return re.compile(python, re.IGNORECASE if ignore_case else 0)


_CLASS_OR_ESCAPE = re.compile(r"\\[^1-9]|\[\^?\]?(?:\\.|[^\]\\])*\]")
_BEYOND_RE2 = (
    (re.compile(r"\(\?<?[=!]"), "look-around is not possible in RE2"),
    (re.compile(r"\\[1-9]"), "back-references are not possible in RE2"),
    (re.compile(r"\(\?>|[*+?}]\+"), "atomic groups and possessive quantifiers are not possible in RE2"),
    (re.compile(r"\(\?\("), "conditional groups are not possible in RE2"),
)


def regex_fault(pattern: str) -> str | None:
    """Why a pattern cannot be used, or None."""
    if len(pattern) > MAX_REGEX:
        return f"a regular expression has at most {MAX_REGEX} characters, this one {len(pattern)}"
    outside = _CLASS_OR_ESCAPE.sub("x", pattern)
    for beyond, why in _BEYOND_RE2:
        if beyond.search(outside):
            return why
    if any(int(n) > 1000 for n in re.findall(r"\{(?:\d*,)?(\d+)\}", pattern)):
        return "RE2 repeats at most 1000 times"
    try:
        compile_regex(pattern)
    except (re.error, OverflowError, RecursionError) as e:
        return f"not a regular expression: {e}"
    return None
