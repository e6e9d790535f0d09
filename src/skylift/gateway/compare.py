"""Two configurations: which requests change their fate, in words.

Representative requests of both (`sample`) are decided by both. Each is decided twice: as it comes, without
credentials, and as if everybody was let in, so that what lies behind authentication is compared too. Requests
that change in the same way are one `Change`, with a few of them as examples.

It is a comparison by examples: what no representative meets is not seen, and `changes` says how many there
were.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from skylift.gateway.access import Acl, Authenticator, PerConsumer, RequireClaim
from skylift.gateway.decision import Decision, World
from skylift.gateway.match import decide
from skylift.gateway.model import Gateway, Step
from skylift.gateway.policies import JoinBase
from skylift.gateway.request import Request
from skylift.gateway.sample import requests

EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Change:
    """What changes, one sentence each, and for which requests (`count` of them, some shown)."""

    what: tuple[str, ...]
    examples: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Comparison:
    changes: tuple[Change, ...]
    tried: int


def compare(old: Gateway, new: Gateway, world: World, *, deep: bool = True) -> Comparison:
    """Every change that a representative request shows. Not `deep`: only where requests go and what path they
    have there, not by which policies (which another dialect names otherwise)."""
    tried = list(dict.fromkeys((*requests(old), *requests(new))))
    open_old, open_new = _open(old), _open(new)
    found: dict[tuple[str, ...], list[str]] = {}
    for request in tried:
        outside = _fate(decide(old, request, world)), _fate(decide(new, request, world))
        before, after = decide(open_old, request, world), decide(open_new, request, world)
        inside = _inside(before, after) if deep else _routing(before, after, old, new)
        what = tuple(dict.fromkeys((*_outside(*outside, deep=deep), *inside)))
        if what:
            found.setdefault(what, []).append(written(request))
    changes = (Change(what, tuple(who[:EXAMPLES]), len(who)) for what, who in found.items())
    return Comparison(tuple(sorted(changes, key=lambda change: -change.count)), len(tried))


def written(request: Request) -> str:
    """A request as `explain --request` takes it."""
    default = Request()
    place = "" if request.host == default.host else f"{request.scheme}://{request.host}"
    if request.scheme == "https" and not place:
        place = f"https://{request.host}"
    headers = "".join(f" -H '{name}: {value}'" for name, value in request.headers)
    client = "" if request.client == default.client else f" --client {request.client}"
    return f"{request.method} {place}{request.target}{headers}{client}"


def _open(gateway: Gateway) -> Gateway:
    """The gateway with everybody let in."""
    routes = tuple(
        replace(route, steps=tuple(step for step in route.steps if not _guards(step)))
        for route in gateway.routes
    )
    return replace(gateway, routes=routes)


def _guards(step: Step) -> bool:
    return isinstance(step.policy, Authenticator | Acl | RequireClaim)


def _fate(decision: Decision) -> str:
    """What a client without credentials meets."""
    if decision.reply is not None:
        return f"{decision.reply.status} ({decision.reply.why})"
    return "the backend"


def _outside(before: str, after: str, *, deep: bool) -> Iterator[str]:
    if before != after and (deep or before[:4] != after[:4]):  # the status, without the reason
        yield f"without credentials it got {before}, now {after}"


def _inside(before: Decision, after: Decision) -> Iterator[str]:
    """Where it goes and what runs, once let in."""
    if before.reply is not None or after.reply is not None:
        if _fate(before) != _fate(after):
            yield f"it went to {_goal(before)}, now to {_goal(after)}"
        return
    one, other = before.sent, after.sent
    assert one is not None  # no reply: sent
    assert other is not None
    if one.service != other.service:
        yield f"it went to {one.service}, now to {other.service}"
    if one.method != other.method:
        yield f"the backend saw {one.method}, now {other.method}"
    if one.path != other.path:
        yield f"the backend saw path {one.path}, now {other.path}"
    if one.host != other.host:
        yield f"the backend saw Host {one.host}, now {other.host}"
    yield from _headers(dict(one.headers), dict(other.headers), "the backend's header")
    yield from _steps(before, after)


def _routing(before: Decision, after: Decision, old: Gateway, new: Gateway) -> Iterator[str]:
    """Where it goes, by addresses, and as which request."""
    one, other = _place(before, old), _place(after, new)
    if one != other:
        yield f"it went to {one}, now to {other}"
    if before.sent is None or after.sent is None:
        return
    for what in ("method", "path", "host"):
        have, now = getattr(before.sent, what), getattr(after.sent, what)
        if have != now:
            yield f"the backend saw {what} {have}, now {now}"


def _place(decision: Decision, gateway: Gateway) -> str:
    if decision.sent is None:
        return f"the gateway's own {decision.reply.status if decision.reply else 0}"
    targets = gateway.upstreams[decision.sent.upstream].targets
    return ", ".join(f"{target.host}:{target.port}" for target in targets)


def _goal(decision: Decision) -> str:
    if decision.sent is not None:
        return decision.sent.service
    return f"the gateway's own {_fate(decision)}"


def _headers(one: dict[str, str], other: dict[str, str], what: str) -> Iterator[str]:
    for name in sorted({*one, *other}):
        if one.get(name) != other.get(name):
            yield f"{what} {name} was {one.get(name, 'absent')}, now {other.get(name, 'absent')}"


def _steps(before: Decision, after: Decision) -> Iterator[str]:
    """Policies by their names: which went, came, or are set otherwise."""
    one, other = _named(before), _named(after)
    for name in sorted(one.keys() - other.keys()):
        yield f"{name} ran, now it does not"
    for name in sorted(other.keys() - one.keys()):
        yield f"{name} did not run, now it does"
    for name in sorted(one.keys() & other.keys()):
        if one[name].policy != other[name].policy:
            yield f"{name} is set otherwise: {_said(before, name)}; now {_said(after, name)}"
    common = one.keys() & other.keys()
    if [name for name in one if name in common] != [name for name in other if name in common]:
        yield f"the order was {', '.join(one)}, now {', '.join(other)}"


def _named(decision: Decision) -> dict[str, Step]:
    """What ran, but for the path's own step, which shows in the path."""
    return {ran.step.name: ran.step for ran in decision.ran if not isinstance(ran.step.policy, JoinBase)}


def _said(decision: Decision, name: str) -> str:
    said = next(ran for ran in decision.ran if ran.step.name == name)
    plans = isinstance(said.step.policy, PerConsumer)
    return said.said + (" (and plans of consumers)" if plans else "")
