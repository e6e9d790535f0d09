"""Filters: which of them a route's steps need, and how one chain holds the chains of all routes.

A listener has one chain of filters; each is off until a route's own words switch it on. Routes want filters
in the order of their steps, and different routes in different orders, so the listener's chain is a sequence
that has every route's as a part (`supersequence`); a kind that is wanted in two places stands there twice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from skylift.gateway.access import OAuth2Login
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.policies import Answer


def router(counted: bool) -> Json:
    """What ends a chain and asks the backend. `counted`: a service's numbers by status and time are kept, one
    part in twenty of what a plain request costs."""
    said = {
        "@type": TYPE + "envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers": True,
        "dynamic_stats": counted,
    }
    return {"name": "envoy.filters.http.router", "typed_config": said}


@dataclass(frozen=True)
class Piece:
    """A route's part in one filter. `kind`: which filter, routes that share it share its name; `shared`: what
    the listener's chain says of it; `own`: what the route says, which switches it on."""

    kind: str
    shared: Json
    own: Json


Endpoints = Callable[[str, int], tuple[tuple[str, int], ...]]  # where a host and port really are


@dataclass
class Book:
    """What is gathered while routes are compiled, and belongs to the listener or to all of it."""

    endpoints: Endpoints
    clusters: dict[str, Json] = field(default_factory=dict)
    jwt_providers: dict[str, Json] = field(default_factory=dict)
    jwt_requirements: dict[str, Json] = field(default_factory=dict)
    replies: list[tuple[str, Answer]] = field(default_factory=list)  # (CEL on Envoy's own answer, ours)
    stamps: dict[str, str] = field(default_factory=dict)  # headers set before routes are looked for: formats
    ours: set[str] = field(default_factory=set)  # further headers that no client may send
    helper: dict[str, Json] = field(default_factory=dict)  # rules for the helper, by their names
    inside: set[str] = field(default_factory=set)  # services that the helper asks through Envoy
    secrets: dict[str, Json] = field(default_factory=dict)  # that Envoy reads from files of their own
    callbacks: dict[str, OAuth2Login] = field(default_factory=dict)  # where issuers send people back to
    routes: int = 0  # a number for names that must differ

    def stamp(self, name: str, envoys_format: str) -> str:
        """A header that the listener sets before it looks for a route; its name."""
        self.stamps[name] = envoys_format
        return name

    def number(self) -> int:
        self.routes += 1
        return self.routes

    def reply(self, expression: str, answer: Answer) -> None:
        if (expression, answer) not in self.replies:
            self.replies.append((expression, answer))


def supersequence(sequences: Iterable[Sequence[str]]) -> list[str]:
    """A short sequence that holds each of these in its order, with gaps."""
    whole: list[str] = []
    for sequence in sequences:
        whole = _merged(whole, sequence)
    return whole


def _merged(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """The shortest sequence that has both, by their longest common part."""
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            same = a[i] == b[j]
            lengths[i][j] = 1 + lengths[i + 1][j + 1] if same else max(lengths[i + 1][j], lengths[i][j + 1])
    i = j = 0
    found: list[str] = []
    while i < len(a) or j < len(b):
        if i < len(a) and j < len(b) and a[i] == b[j]:
            found.append(a[i])
            i, j = i + 1, j + 1
        elif j == len(b) or (i < len(a) and lengths[i + 1][j] >= lengths[i][j + 1]):
            found.append(a[i])
            i += 1
        else:
            found.append(b[j])
            j += 1
    return found


def places(sequence: Sequence[str], whole: Sequence[str]) -> list[int]:
    """Where in the whole each of the sequence stands."""
    found, at = [], 0
    for name in sequence:
        at = whole.index(name, at)
        found.append(at)
        at += 1
    return found


def name_of(kind: str, place: int) -> str:
    """The filter's name in the chain."""
    return f"{place:02d}.{kind}"


def chain(whole: Sequence[str], shared: dict[str, Json], counted: bool) -> list[Json]:
    """The listener's filters, each off, and the router that ends them."""
    filters = [
        {"name": name_of(kind, place), "disabled": True, "typed_config": shared[kind]}
        for place, kind in enumerate(whole)
    ]
    return [*filters, router(counted)]
