"""When a route is meant: a tree of tests on a request, and the sentences that say why one failed."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from skylift.gateway.request import Request
from skylift.gateway.text import Kind, Text


class Part(StrEnum):
    """What of a request a test looks at."""

    PATH = "path"
    HOST = "host"  # lower case, without port
    PORT = "port"  # the listener's, as text
    METHOD = "method"
    HEADER = "header"
    QUERY = "query parameter"
    CLIENT = "client address"  # the socket's peer, never X-Forwarded-For
    SCHEME = "scheme"
    SNI = "server name"


@dataclass(frozen=True, slots=True)
class Test:
    """Any value of this part passes any of these comparisons. `name`: of the header or the parameter."""

    __test__ = False
    part: Part
    texts: tuple[Text, ...]
    name: str = ""

    def __str__(self) -> str:
        what = f"{self.part} {self.name}".rstrip()
        return f"{what} " + " or ".join(str(text) for text in self.texts)


@dataclass(frozen=True, slots=True)
class All:
    """Every one; `All(())` always holds."""

    of: tuple["Condition", ...]

    def __str__(self) -> str:
        return " and ".join(_braced(part) for part in self.of) or "always"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one; `AnyOf(())` never holds."""

    of: tuple["Condition", ...]

    def __str__(self) -> str:
        return " or ".join(_braced(part) for part in self.of) or "never"


@dataclass(frozen=True, slots=True)
class Not:
    of: "Condition"

    def __str__(self) -> str:
        return f"not ({self.of})"


Condition = Test | All | AnyOf | Not
ALWAYS = All(())


def _braced(condition: Condition) -> str:
    return (
        f"({condition})" if isinstance(condition, All | AnyOf) and len(condition.of) > 1 else str(condition)
    )


def values(request: Request, part: Part, name: str = "") -> tuple[str, ...]:
    """What the request has of a part; empty where it has nothing."""
    match part:
        case Part.PATH:
            return (request.path,)
        case Part.HOST:
            return (request.host,)
        case Part.PORT:
            return (str(request.port),)
        case Part.METHOD:
            return (request.method,)
        case Part.HEADER:
            return request.header_values(name)
        case Part.QUERY:
            return tuple(value for key, value in request.query if key == name)
        case Part.CLIENT:
            return (request.client,)
        case Part.SCHEME:
            return (request.scheme,)
        case Part.SNI:
            return (request.sni,) if request.sni else ()


def holds(condition: Condition, request: Request) -> bool:
    """Whether a request passes a condition."""
    match condition:
        case Test(part, texts, name):
            return any(text.matches(value) for value in values(request, part, name) for text in texts)
        case All(of):
            return all(holds(each, request) for each in of)
        case AnyOf(of):
            return any(holds(each, request) for each in of)
        case Not(of):
            return not holds(of, request)


def why_not(condition: Condition, request: Request) -> tuple[str, ...]:
    """What of the condition the request fails, one sentence each; empty where it passes."""
    if holds(condition, request):
        return ()
    match condition:
        case Test(part, texts, name):
            return (_fails(request, part, texts, name),)
        case All(of):
            return tuple(reason for each in of for reason in why_not(each, request))
        case AnyOf(of):
            reasons = [" and ".join(why_not(each, request)) for each in of]
            return ("; and ".join(reasons) or "it matches no request",)
        case Not(of):
            return (f"it is excluded: {of}",)


def _fails(request: Request, part: Part, texts: tuple[Text, ...], name: str) -> str:
    what = f"{part} {name}".rstrip()
    have = values(request, part, name)
    wanted = " or ".join(_negated(text) for text in texts)
    return f"{what} is absent" if not have else f"{what} {', '.join(have)} {wanted}"


_NEGATED = {
    Kind.EXACT: "is not",
    Kind.PREFIX: "does not begin with",
    Kind.SEGMENT: "is not under",
    Kind.SUFFIX: "does not end with",
    Kind.ONE_LABEL: "is not one label under",
    Kind.REGEX_START: "does not begin with a match of",
    Kind.REGEX_SEARCH: "has no match of",
    Kind.REGEX_FULL: "does not match",
    Kind.NETWORK: "is not in",
    Kind.PRESENT: "is not present",
}


def _negated(text: Text) -> str:
    return f"{_NEGATED[text.kind]} {text.value}"


def tests(condition: Condition) -> Iterator[Test]:
    """Every test in the tree, those under a Not too."""
    match condition:
        case Test():
            yield condition
        case Not(of):
            yield from tests(of)
        case All(of) | AnyOf(of):
            for each in of:
                yield from tests(each)
