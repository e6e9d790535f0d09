"""Policies that change a request or an answer for some consumers otherwise than for the rest.

Who asks is known only once a route has been found. So a route with such plans is several: its own, and one
for each consumer who has a plan. Where the first plan would run our filter looks for the route again
(reroute.c); the consumer's own is found by headers that no client can send. Envoy makes a request's filters
when it finds the first route: all want the same ones there, and who needs one less has it do nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from skylift.gateway.access import PerConsumer, Policy
from skylift.gateway.envoy import limiting, pieces, transforms
from skylift.gateway.envoy.formats import CONSUMER, header
from skylift.gateway.envoy.matching import Match
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.model import Gateway, Route
from skylift.gateway.policies import RequestTransform, ResponseTransform

OWN_WORDS = (RequestTransform, ResponseTransform)
VARIANT = "x-sl-variant"  # the route that is looked for again
LONGEST = 255  # bytes; reroute.c: MAX_VALUE


@dataclass(frozen=True, slots=True)
class Made:
    """What a plan comes to."""

    pieces: Sequence[Piece]
    action: Json


def consumers(route: Route) -> list[str]:
    """Who has a variant of the route."""
    plans = [step.policy.plans for step in route.steps if is_own(step.policy)]
    return sorted({name for each in plans for name, _ in each})


def is_own(policy: Policy) -> TypeGuard[PerConsumer]:
    return isinstance(policy, PerConsumer) and any(isinstance(plan, OWN_WORDS) for _, plan in policy.plans)


def looks_again(route: Route, book: Book) -> list[Piece]:
    """The stamp, and the filter that looks for the route again."""
    names = consumers(route)
    long = [name for name in names if len(name.encode()) > LONGEST]
    if long:
        rule = f"a consumer with a policy of his own has a name of at most {LONGEST} bytes"
        raise Refused([Problem("", "consumer", rule, long[0][:40])])
    book.ours.update((VARIANT, CONSUMER))
    stamp = transforms.mutation([{"append": header(VARIANT, route.id.replace("%", "%%"))}])
    text = f"header {CONSUMER}\n" + "".join(f"to {name}\n" for name in names)
    return [stamp, limiting.piece("reroute", text)]


def chosen(policy: PerConsumer, who: str | None, route: Route, gateway: Gateway, book: Book) -> Made:
    """What `who` gets (None: everybody else), with as many filters as anybody."""
    made = {name: _made(plan, route, gateway, book) for name, plan in policy.plans}
    rest = Made((), {}) if policy.otherwise is None else _made(policy.otherwise, route, gateway, book)
    whole = pieces.supersequence([piece.kind for piece in each.pieces] for each in (*made.values(), rest))
    shared = {piece.kind: piece for each in (*made.values(), rest) for piece in each.pieces}
    mine = made.get(who or "", rest)
    places = pieces.places([piece.kind for piece in mine.pieces], whole)
    used = dict(zip(places, mine.pieces, strict=True))
    idle = [used.get(place) or _idle(shared[kind]) for place, kind in enumerate(whole)]
    return Made(idle, mine.action)


def _made(plan: Any, route: Route, gateway: Gateway, book: Book) -> Made:
    match plan:
        case RequestTransform():
            return Made(*transforms.request(plan, route, book))
        case ResponseTransform():
            return Made(transforms.response(plan, gateway, book), {})
        case _:
            what = f"{type(plan).__name__} cannot stand beside a consumer's own headers and bodies"
            raise Refused([Problem("", "plans", what)])


_IDLE: Mapping[str, Json] = {
    "headers": {"mutations": {}},
    "captures": {"request_rules": [transforms.NOTHING_NOTED]},
}
NO_SCRIPT: Json = {"disabled": True}


def _idle(piece: Piece) -> Piece:
    """The same filter, which does nothing."""
    return replace(piece, own={"@type": piece.own["@type"], **_IDLE.get(piece.kind, NO_SCRIPT)})


def matches(of_route: Sequence[Match], route: Route, who: str) -> Iterator[Match]:
    """When a variant is meant. Headers of the client's were compared when the route was found, and may have
    been changed since; what the listener noted of the request has not."""
    mine = [_is(VARIANT, route.id), _is(CONSUMER, who)]
    for match in of_route:
        kept = [each for each in match.json.get("headers", ()) if each["name"].startswith((":", "x-sl-"))]
        yield replace(match, json={**match.json, "headers": [*mine, *kept]})


def _is(name: str, value: str) -> Json:
    return {"name": name, "string_match": {"exact": value}}
