"""A request on its way through the steps of its route: what policies change, and what they may look at."""

import json
from collections.abc import Mapping
from typing import Any

from skylift.gateway.decision import Counters, Reply, World
from skylift.gateway.limits import State
from skylift.gateway.model import Consumer, Forwarding, Gateway, Route
from skylift.gateway.policies import AddressFrom, Answer, Key, KeyKind
from skylift.gateway.request import Request
from skylift.gateway.template import Source, Template, Var, fill
from skylift.gateway.text import REGEXES, in_network, subnet_of


class Flow:
    """One request's state; lives as long as one decision."""

    def __init__(
        self, gateway: Gateway, route: Route, request: Request, world: World, counters: Counters
    ) -> None:
        self.gateway, self.route, self.request, self.world = gateway, route, request, world
        self.counters: dict[tuple[str, str, str], State] = dict(counters)
        self.method, self.path, self.body = request.method, request.path, request.body
        self.query = list(request.query)
        self.headers = list(request.headers)
        self.host: str | None = None  # set by a policy
        self.consumer: Consumer | None = None
        self.credential: str | None = None
        self.claims: Mapping[str, Any] = {}
        self.answer_headers: list[tuple[str, str]] = []
        self.last_reset = 0
        self.about = ""

    # --- headers -------------------------------------------------------------------------------------

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def drop(self, name: str) -> None:
        self.headers = [(key, value) for key, value in self.headers if key.lower() != name.lower()]

    def put(self, name: str, value: str) -> None:
        self.drop(name)
        self.headers.append((name, value))

    # --- values --------------------------------------------------------------------------------------

    def value_of(self, var: Var) -> str | None:
        """What a template's hole is filled with."""
        request = self.request
        match var.source:
            case Source.HEADER:
                return next(iter(self.values(var.name.replace("_", "-"))), None) or request.header(var.name)
            case Source.QUERY:
                return next((value for key, value in self.query if key == var.name), None)
            case Source.CAPTURE:
                return self.captures().get(var.name)
            case Source.CLAIM:
                found = self.claims.get(var.name)
                return found if isinstance(found, str) or found is None else json.dumps(found)
            case Source.CONSUMER:
                return self.consumer.name if self.consumer else None
            case Source.UUID:
                return self.world.uuid
            case Source.REQUEST_ID:
                return request.header("x-request-id") or self.world.uuid
            case Source.CLIENT:
                return request.client
            case Source.PATH:
                return self.path
            case Source.HOST:
                return request.host
            case Source.ABOUT:
                return self.about
            case Source.LIMIT_RESET:
                return str(self.last_reset)

    def text(self, template: Template) -> str:
        return fill(template, self.value_of)

    def captures(self) -> dict[str, str]:
        """The groups of the route's path regex, by number and by name."""
        text = self.route.path
        found = text.regex_match(self.request.path) if text and text.kind in REGEXES else None
        if found is None:
            return {}
        numbered = {str(number): value or "" for number, value in enumerate(found.groups(), 1)}
        return numbered | {name: value or "" for name, value in found.groupdict().items()}

    def address(self, how: AddressFrom) -> str:
        """The client's address as a policy wants it seen; empty where X-Forwarded-For is too short."""
        hops = forwarded_for(self.request)
        found = self.request.client
        if how.depth:
            found = hops[-how.depth] if len(hops) >= how.depth else ""
        elif how.excluded:
            outside = [hop for hop in reversed(hops) if not any(in_network(hop, net) for net in how.excluded)]
            found = outside[0] if outside else ""
        elif self.gateway.forwarding.trusted:
            found = believed_client(self.request, self.gateway.forwarding)
        return subnet_of(found, how.ipv6_prefix)

    def key(self, key: Key) -> str:
        """Which bucket a request counts in."""
        found = self._key_value(key)
        if not found and key.else_client and key.kind is not KeyKind.EVERYBODY:
            return self.address(key.address)
        return found

    def _key_value(self, key: Key) -> str:
        match key.kind:
            case KeyKind.CLIENT:
                return self.address(key.address)
            case KeyKind.CONSUMER:
                return self.consumer.name if self.consumer else ""
            case KeyKind.CREDENTIAL:
                return self.credential or ""
            case KeyKind.HEADER:
                return self.request.header(key.name) or ""
            case KeyKind.QUERY:
                return next((value for name, value in self.request.query if name == key.name), "")
            case KeyKind.COOKIE:
                return cookies(self.request).get(key.name, "")
            case KeyKind.CAPTURE:
                return self.captures().get(key.name, "")
            case KeyKind.CLAIM:
                return str(self.claims.get(key.name, ""))
            case KeyKind.HOST:
                return self.request.host
            case KeyKind.PATH:
                return self.request.path if not key.name or self.request.path == key.name else ""
            case KeyKind.EVERYBODY:
                return "*"

    # --- answers -------------------------------------------------------------------------------------

    def reply(self, answer: Answer, why: str) -> Reply:
        """An answer of the gateway's own, its holes filled; empty headers are not sent."""
        given = [(name, self.text(value)) for name, value in answer.headers]
        body = self.text(answer.body)
        typed = [("Content-Type", answer.content_type)] if body else []
        sent = (*typed, *((name, value) for name, value in given if value), *self.answer_headers)
        return Reply(answer.status, body, tuple(sent), why)


def cookies(request: Request) -> dict[str, str]:
    """The cookies a request carries."""
    pairs = ";".join(request.header_values("cookie")).split(";")
    return {name.strip(): value.strip() for name, eq, value in (pair.partition("=") for pair in pairs) if eq}


def forwarded_for(request: Request) -> list[str]:
    """The addresses of X-Forwarded-For, in their order."""
    lists = request.header_values("x-forwarded-for")
    return [hop.strip() for text in lists for hop in text.split(",") if hop.strip()]


def believed_client(request: Request, forwarding: Forwarding) -> str:
    """The client's address as trusted proxies say: the first, from the right, that is none of them."""
    found = request.client
    for hop in reversed(forwarded_for(request)):
        if not any(in_network(found, network) for network in forwarding.trusted):
            return found
        found = hop
    return found
