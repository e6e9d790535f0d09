"""The reference: what must happen to a request, decided on paper.

`decide(gateway, request)` says which route takes it and why the others do not, which policies run in which
order and what each says, what the gateway answers itself, or what the backend sees. It knows no dialect:
order, path rules, texts are data of the model. The data plane is held against it in property tests, and
`explain`, `diff`, `check` and `test` are built on it.

What it cannot know it takes as an argument: the time, the counters (`Book`), who verifies a signature
(`World.verify`), what an auth service would say (`World.ask`).
"""

from collections.abc import Iterable

from skylift.gateway.conditions import holds, why_not
from skylift.gateway.decision import NO_COUNTERS, Counters, Decision, Miss, World
from skylift.gateway.effects import run, unrouted
from skylift.gateway.model import Gateway, Route
from skylift.gateway.request import Request


def select(
    routes: Iterable[Route], request: Request, listener: str = ""
) -> tuple[Route | None, tuple[Miss, ...]]:
    """The first route, in this order, that takes the request, and every other with its reasons.

    A route that fails by its scheme only, and has something to say about that (`wrong_scheme`), answers where
    no other route takes the request."""
    taken: Route | None = None
    wrong_scheme: Route | None = None
    misses: list[Miss] = []
    for route in routes:
        reasons = _reasons(route, request, listener)
        if taken is not None:
            misses.append(Miss(route, reasons or ("it would take it too, but comes later",), asked=False))
        elif not reasons:
            taken = route
        else:
            misses.append(Miss(route, reasons))
            if route.wrong_scheme and wrong_scheme is None and holds(route.when, request):
                wrong_scheme = route
    return taken or wrong_scheme, tuple(misses)


def _reasons(route: Route, request: Request, listener: str) -> tuple[str, ...]:
    reasons = list(why_not(route.when, request))
    if request.scheme not in route.schemes:
        reasons.append(f"it speaks {' and '.join(route.schemes)}, the request is {request.scheme}")
    if listener and route.listeners and listener not in route.listeners:
        reasons.append(f"it listens on {', '.join(route.listeners)}, not on {listener}")
    return tuple(reasons)


def decide(
    gateway: Gateway,
    request: Request,
    world: World = World(),  # noqa: B008 - frozen
    counters: Counters = NO_COUNTERS,
    listener: str = "",
) -> Decision:
    """What happens to a request. The same arguments give the same decision."""
    route, misses = select(gateway.ordered, request, listener)
    if route is None:
        return Decision(request, None, misses, reply=unrouted(gateway, request, world), counters=counters)
    misses = tuple(miss for miss in misses if miss.route is not route)
    return run(gateway, route, request, world, counters, misses)
