"""The path that the backend sees, as Envoy's one regex rewrite.

A path policy does different things to different paths (a prefix is cut only where it is there; a slash is put
only where it is missing). Envoy has one rewrite a route and no "if" in it. So a route becomes several, one
for each `Case`: a condition on the path, and the rewrite that holds there. Cases are tried in order.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from skylift.gateway.access import Policy
from skylift.gateway.conditions import Part, Test
from skylift.gateway.envoy.matching import Literal, Way
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.policies import (
    AddPrefix,
    JoinBase,
    ReplacePath,
    ReplacePathRegex,
    StripPrefix,
    StripPrefixRegex,
)
from skylift.gateway.text import REGEXES, Kind, Text

PATHS = (JoinBase, StripPrefix, StripPrefixRegex, AddPrefix, ReplacePath, ReplacePathRegex)


@dataclass(frozen=True, slots=True)
class Case:
    """Under `way` the path is rewritten: what matches `pattern` becomes `substitution` (RE2's \\1). `tells`:
    headers for the backend, (name, Envoy's format)."""

    way: Way = ()
    pattern: str = ""
    substitution: str = ""
    tells: tuple[tuple[str, str], ...] = ()

    @property
    def rewrites(self) -> bool:
        return bool(self.pattern)


def cases(policies: Iterable[Policy], path: Text | None) -> list[Case]:
    """The cases of a route's path policies, in the order they run. `path`: what JoinBase cuts. Raises Refused
    for chains that one rewrite cannot do."""
    found = [Case()]
    for policy in policies:
        if isinstance(policy, PATHS):
            found = [further for case in found for further in _further(case, policy, path)]
    return found


def _further(case: Case, policy: Policy, path: Text | None) -> Iterator[Case]:
    match policy:
        case AddPrefix(prefix):
            pattern, substitution = (case.pattern, case.substitution) if case.rewrites else ("^(.*)$", r"\1")
            front = "/" + prefix.lstrip("/") if prefix.lstrip("/") else ""
            yield replace(case, pattern=pattern, substitution=_escaped(front) + substitution)
        case ReplacePath(path=wanted):
            told = (*case.tells, ("X-Replaced-Path", "%PATH(NQ)%"))
            yield replace(case, pattern="^.*$", substitution=_escaped(wanted), tells=told)
        case _ if case.rewrites:
            what = f"{type(policy).__name__} cannot follow another change of the path here"
            raise Refused([Problem("", "middlewares", what)])
        case JoinBase(base, strip):
            yield from _joined(base, path if strip else None)
        case StripPrefix(prefixes):
            for prefix in prefixes:
                yield _cut(
                    Text(Kind.PREFIX, prefix), re.escape(prefix), (("X-Forwarded-Prefix", _told(prefix)),)
                )
            yield Case()
        case StripPrefixRegex(regexes):
            for regex in regexes:
                yield _cut(Text(Kind.REGEX_START, regex), f"(?:{regex})", ())
            yield Case()
        case ReplacePathRegex(regex, replacement):
            way = (Literal(Test(Part.PATH, (Text(Kind.REGEX_SEARCH, regex),))),)
            yield Case(way, regex, from_go(replacement, regex), (("X-Replaced-Path", "%PATH(NQ)%"),))
            yield Case()


def _joined(base: str, cut: Text | None) -> Iterator[Case]:
    """Kong's join: the rest behind the base with one slash between, and no slash where there is no rest."""
    front = _escaped(base.rstrip("/"))
    if cut is None:
        if not front:
            yield Case()
            return
        yield Case(_exactly("/"), "^.*$", front)
        yield Case((), "^/?(.*)$", rf"{front}/\1")
        return
    body = f"(?:{cut.value})" if cut.kind in REGEXES else re.escape(cut.value)
    if front:
        yield from _nothing_left(cut, front)
    yield Case((), f"^{_flags(cut)}{body}/?(.*)$", rf"{front}/\{_groups(body) + 1}")


def _nothing_left(cut: Text, front: str) -> Iterator[Case]:
    """Where the whole path is cut there is no rest: a slash stands at the end only where one stood."""
    if cut.kind not in REGEXES:
        yield Case(
            _exactly(cut.value), "^.*$", front + "/" * (len(cut.value) > 1 and cut.value.endswith("/"))
        )
        return
    whole = Literal(Test(Part.PATH, (Text(Kind.REGEX_FULL, cut.value, cut.ignore_case),)))
    no_slash = Literal(Test(Part.PATH, (Text(Kind.SUFFIX, "/"),)), wanted=False)
    yield Case((whole, no_slash), "^.*$", front)


def _cut(text: Text, body: str, tells: tuple[tuple[str, str], ...]) -> Case:
    way = (Literal(Test(Part.PATH, (text,))),)
    return Case(way, f"^{body}/?(.*)$", rf"/\{_groups(body) + 1}", tells)


def _exactly(path: str) -> Way:
    return (Literal(Test(Part.PATH, (Text(Kind.EXACT, path),))),)


def _flags(text: Text) -> str:
    return "(?i)" if text.ignore_case else ""


def _groups(pattern: str) -> int:
    return re.compile(re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", pattern)).groups


def _escaped(text: str) -> str:
    """Plain text in a substitution."""
    return text.replace("\\", r"\\")


def _told(text: str) -> str:
    """Plain text in a header's format."""
    return text.replace("%", "%%")


def from_go(replacement: str, regex: str) -> str:
    r"""Go's `$1`, `${1}`, `${name}` in RE2's `\1`, and `$$`, which is a dollar; groups that do not exist are
    empty."""
    compiled = re.compile(re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", regex))
    known = {**{str(number): number for number in range(compiled.groups + 1)}, **compiled.groupindex}

    def number(found: re.Match[str]) -> str:
        name = found[2] or found[3]
        return "$" if found[1] else f"\\{known[name]}" if name in known else ""

    return re.sub(r"\$(?:(\$)|\{(\w+)\}|(\w+))", number, _escaped(replacement))
