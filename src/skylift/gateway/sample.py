"""Representative requests: for every route of a configuration some that it takes, and some just beside it.

A condition becomes a few partial requests (alternatives are tried one by one, a conjunction merges); each
text gives values that pass it, and for paths also what lies at its edge: one character more, one segment
more, a slash at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from ipaddress import ip_network
from itertools import islice, product
from typing import Any

from skylift.gateway.conditions import All, AnyOf, Condition, Not, Part, Test
from skylift.gateway.model import Gateway, Route
from skylift.gateway.request import Request, normal_path
from skylift.gateway.text import REGEXES, Kind, Text, compile_regex

MAX_EACH = 24  # requests of one route: enough for the edges of several alternatives
words: Any = import_module("re._constants")
parser: Any = import_module("re._parser")


@dataclass(frozen=True, slots=True)
class Partial:
    """What a request needs so far. `parts`: path, host, method, ...; names are in `named`."""

    parts: dict[Part, str] = field(default_factory=dict)
    named: dict[tuple[Part, str], str] = field(default_factory=dict)

    def merged(self, other: "Partial") -> "Partial | None":
        """Both needs, or None where they contradict each other by their values."""
        if any(self.parts[part] != other.parts[part] for part in self.parts.keys() & other.parts.keys()):
            return None
        if any(self.named[name] != other.named[name] for name in self.named.keys() & other.named.keys()):
            return None
        return Partial({**self.parts, **other.parts}, {**self.named, **other.named})

    def request(self, base: Request) -> Request:
        get = self.parts.get
        host = get(Part.HOST, base.host)
        headers = tuple((name, value) for (part, name), value in self.named.items() if part is Part.HEADER)
        query = tuple((name, value) for (part, name), value in self.named.items() if part is Part.QUERY)
        scheme = get(Part.SCHEME, base.scheme)
        port = get(Part.PORT, str(base.port))
        return replace(
            base,
            method=get(Part.METHOD, base.method),
            path=normal_path(get(Part.PATH, base.path)),
            query=query,
            headers=headers,
            host=host,
            port=int(port) if port.isdecimal() else base.port,
            scheme=scheme,
            client=get(Part.CLIENT, base.client),
            sni=get(Part.SNI, ""),
        )


def requests(gateway: Gateway) -> Iterator[Request]:
    """Representatives of every route, and of no route."""
    yield Request()
    yield Request(path="/no/such/path")
    for route in gateway.routes:
        yield from of_route(route)


def of_route(route: Route) -> Iterator[Request]:
    schemes = route.schemes or ("http",)
    base = Request(scheme=schemes[0], port=443 if schemes[0] == "https" else 80)
    if "http" in schemes:
        base = Request()
    for partial in islice(partials(route.when), MAX_EACH):
        yield partial.request(base)


def partials(condition: Condition) -> Iterator[Partial]:
    """Some ways to pass a condition; what is under a Not is left to the other parts."""
    match condition:
        case Test():
            for text in condition.texts:
                for value in values(text, edges=condition.part is Part.PATH):
                    if condition.part in (Part.HEADER, Part.QUERY):
                        yield Partial(named={(condition.part, condition.name): value})
                    else:
                        yield Partial({condition.part: value})
        case AnyOf(of):
            for each in of:
                yield from partials(each)
        case All(of):
            for choice in islice(product(*(list(islice(partials(each), 8)) for each in of)), MAX_EACH):
                found: Partial | None = Partial()
                for need in choice:
                    found = found.merged(need) if found else None
                if found:
                    yield found
        case Not():
            yield Partial()


def values(text: Text, *, edges: bool = False) -> list[str]:
    """Values that pass a comparison; with `edges` paths that end in other ways too."""
    value = text.value
    if text.kind is Kind.NETWORK:
        network = ip_network(value, strict=False)
        return [str(network[min(1, network.num_addresses - 1)])]
    if text.kind in REGEXES:
        made = example(value)
        return [made] if text.matches(made) else []
    plain = {
        Kind.SUFFIX: [f"a{value}", f"b.a{value}"],
        Kind.ONE_LABEL: [f"a{value}"],
        Kind.PREFIX: [value, f"{value}x"] if not edges else [value, f"{value.rstrip('/')}/7", f"{value}x"],
        Kind.SEGMENT: [value, f"{value.rstrip('/')}/7"],
        Kind.PRESENT: ["1"],
    }.get(text.kind, [value])
    return [*plain, f"{value.rstrip('/')}/"] if edges and text.kind is Kind.PREFIX else plain


def example(pattern: str) -> str:
    """A short text that a pattern matches, as a rule; whether it does is for the caller to see."""
    return "".join(_made(parser.parse(compile_regex(pattern).pattern)))


def _made(parsed: Any) -> Iterator[str]:
    for op, arguments in parsed:
        if op is words.LITERAL:
            yield chr(arguments)
        elif op is words.IN:
            yield _one_of(arguments)
        elif op is words.ANY:
            yield "x"
        elif op is words.NOT_LITERAL:
            yield "x" if arguments != ord("x") else "y"
        elif op in (words.MAX_REPEAT, words.MIN_REPEAT):
            yield "".join(_made(arguments[2])) * max(1 if arguments[1] else 0, arguments[0])
        elif op is words.SUBPATTERN:
            yield from _made(arguments[-1])
        elif op is words.BRANCH:
            yield from _made(arguments[1][0])


_CATEGORY = {"CATEGORY_DIGIT": "7", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "x", "CATEGORY_NOT_DIGIT": "x"}


def _one_of(items: Any) -> str:
    if items[0][0] is words.NEGATE:
        taken = {arguments for op, arguments in items if op is words.LITERAL}
        return next(sign for sign in "x7y-" if ord(sign) not in taken)
    op, arguments = items[0]
    if op is words.RANGE:
        return chr(arguments[0])
    return _CATEGORY.get(str(arguments), "x") if op is words.CATEGORY else chr(arguments)
