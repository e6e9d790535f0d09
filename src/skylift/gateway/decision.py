"""The nouns of a decision: what `match.decide` is told of the world, and what it says about a request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from skylift.gateway.access import ForwardAuth, Introspection, JwtKey
from skylift.gateway.limits import State
from skylift.gateway.model import Route, Step
from skylift.gateway.policies import Answer
from skylift.gateway.request import Request

Counters = Mapping[tuple[str, str, str], State]  # (bucket, limit's name, key) -> state
NO_COUNTERS: Counters = MappingProxyType({})


def _believes_nothing(token: str, key: JwtKey) -> bool:
    return False


def _lets_pass(policy: ForwardAuth | Introspection, request: Request) -> tuple[int, Mapping[str, str]]:
    return 200, {}


@dataclass(frozen=True, slots=True)
class World:
    """What the gateway would know and the request does not say.

    `verify(token, key)`: whether the token's signature is this key's. `ask(policy, request)`: the answer of
    an auth service, its status and headers. `choose`: which of several weighted services, in [0, 1). `uuid`:
    what stands for a fresh uuid."""

    now: float = 0.0
    verify: Callable[[str, JwtKey], bool] = _believes_nothing
    ask: Callable[[ForwardAuth | Introspection, Request], tuple[int, Mapping[str, str]]] = _lets_pass
    choose: float = 0.0
    uuid: str = "<uuid>"


@dataclass(frozen=True, slots=True)
class Miss:
    """A route that does not take the request; `asked` is False for those behind the one that did."""

    route: Route
    reasons: tuple[str, ...]
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Ran:
    """One policy that ran: what it said, and its answer where it ended the request."""

    step: Step
    said: str
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What the backend sees. `host`: the Host header."""

    service: str
    upstream: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    host: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the gateway answers itself, its text filled in."""

    status: int
    body: str
    headers: tuple[tuple[str, str], ...]
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Exactly one of `reply` and `sent` is given."""

    request: Request
    route: Route | None
    misses: tuple[Miss, ...]
    ran: tuple[Ran, ...] = ()
    reply: Reply | None = None
    sent: Sent | None = None
    consumer: str | None = None
    answer_headers: tuple[tuple[str, str], ...] = ()  # added to whatever the backend answers
    counters: Counters = field(default_factory=dict, compare=False)
