"""A question, and what can be answered to it; the names that the compiler and the helper share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from skylift.gateway.policies import Answer
from skylift.gateway.template import Source, Template, Var, fill

ASK, KEY, CLIENT, CREDENTIAL = "x-sl-ask", "x-sl-key", "x-sl-client", "x-sl-credential"
HOP = "x-sl-hop"  # an address of X-Forwarded-For, where it counts for the client's
WHO = "x-sl-who"  # the consumer, where each has a plan of its own
SERVICE = "x-sl-service"  # which backend the inner listener shall ask
RULES, SOCKET, INSIDE = "helper.json", "helper.sock", "inside.sock"  # in the supervisor's place
HOLES = frozenset({Source.HEADER, Source.QUERY, Source.CONSUMER, Source.REQUEST_ID, Source.UUID})
HASHES = ("$2a$", "$2b$", "$2y$", "$apr1$", "{SHA}")  # passwords that can be looked at
K = TypeVar("K")
V = TypeVar("V")
GATHER = "skylift-gather"  # the same as ASK, and no x-sl-*: those end at the router, this goes to the helper
CLAIM = "x-sl-claim-"  # with a claim's name behind it: what `require` looks at


@dataclass(frozen=True, slots=True)
class Said:
    """200 lets pass, with headers for backend and client; anything else is the client's answer."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


def refusal(
    answer: Answer, headers: Mapping[str, str], more: tuple[tuple[str, str], ...] = (), reset: int = 0
) -> Said:
    """A policy's own answer, its holes filled with what a helper can know."""

    def value_of(var: Var) -> str | None:
        known: dict[Source, Callable[[], str]] = {
            Source.REQUEST_ID: lambda: headers.get("x-request-id", ""),
            Source.LIMIT_RESET: lambda: str(reset),
        }
        return known[var.source]() if var.source in known else None

    def text(template: Template) -> str:
        return fill(template, value_of)

    own = tuple((name, text(value)) for name, value in answer.headers)
    kind = (("content-type", answer.content_type),) if answer.body else ()
    return Said(answer.status, (*kind, *more, *(pair for pair in own if pair[1])), text(answer.body))


@dataclass
class Kept(Generic[K, V]):
    """A few results, each until its time; the oldest gives way."""

    most: int
    _found: dict[K, tuple[float, V]] = field(default_factory=dict)

    def get(self, key: K, now: float) -> V | None:
        until, value = self._found.get(key, (0.0, None))
        return value if now < until else None

    def put(self, key: K, value: V, until: float) -> None:
        self._found.pop(key, None)
        while len(self._found) >= self.most:
            del self._found[next(iter(self._found))]
        self._found[key] = until, value
