"""A decision in words, and as JSON: which route and why not the others, what ran, what comes of it."""

from collections.abc import Iterator
from typing import Any

from skylift.gateway.decision import Decision, Miss
from skylift.gateway.model import Route

MAX_MISSES = 12  # of many routes that do not match, the first say enough


def place(route: Route) -> str:
    return f" ({route.origin})" if str(route.origin) else ""


def lines(decision: Decision, *, every: bool = False) -> Iterator[str]:
    """The explanation, line by line. `every`: all routes that did not match, not only the first."""
    request = decision.request
    yield f"{request.method} {request.target} on {request.host}:{request.port} from {request.client}"
    before = [miss for miss in decision.misses if miss.asked]
    after = [miss for miss in decision.misses if not miss.asked]
    yield from _misses("asked before, and not taken", before, every=every)
    if decision.route is None:
        yield "route: none"
    else:
        written = decision.route.written or str(decision.route.when)
        yield f"route: {decision.route.name}{place(decision.route)}: {written}"
    takers = [miss for miss in after if "it would take it too, but comes later" in miss.reasons]
    for miss in takers:
        yield f"  {miss.route.name} would take it too, but comes later{place(miss.route)}"
    if decision.ran:
        yield "policies, in order:"
    for number, ran in enumerate(decision.ran, 1):
        ends = "" if ran.answer is None else f" -> {ran.answer.status}"
        yield f"  {number}. {ran.step.name}: {ran.said}{ends}"
    yield from _outcome(decision)


def _misses(title: str, misses: list[Miss], *, every: bool) -> Iterator[str]:
    if not misses:
        return
    yield f"{title}:"
    shown = misses if every else misses[:MAX_MISSES]
    for miss in shown:
        yield f"  {miss.route.name}: {'; '.join(miss.reasons)}"
    if len(misses) > len(shown):
        yield f"  and {len(misses) - len(shown)} more"


def _outcome(decision: Decision) -> Iterator[str]:
    if decision.reply is not None:
        yield f"the gateway answers {decision.reply.status}: {decision.reply.why}"
        for name, value in decision.reply.headers:
            yield f"  {name}: {value}"
        if decision.reply.body:
            yield f"  {' '.join(decision.reply.body.split())}"
        return
    sent = decision.sent
    if sent is None:
        return
    query = "&".join(f"{name}={value}" for name, value in sent.query)
    yield f"the backend {sent.service} sees: {sent.method} {sent.path}{'?' if query else ''}{query}"
    yield f"  Host: {sent.host}"
    for name, value in sent.headers:
        yield f"  {name}: {value}"
    if decision.answer_headers:
        yield "the client gets besides:"
        for name, value in decision.answer_headers:
            yield f"  {name}: {value}"


def as_json(decision: Decision) -> dict[str, Any]:
    """The same for programs. `outcome` is `answered` or `sent`."""
    reply, sent, request = decision.reply, decision.sent, decision.request
    return {
        "request": {
            "method": request.method,
            "path": request.path,
            "query": list(map(list, request.query)),
            "host": request.host,
            "client": request.client,
        },
        "route": decision.route.name if decision.route else None,
        "origin": str(decision.route.origin) if decision.route else None,
        "not_taken": [
            {"route": miss.route.name, "reasons": list(miss.reasons), "asked": miss.asked}
            for miss in decision.misses
        ],
        "policies": [
            {
                "name": ran.step.name,
                "said": ran.said,
                "answers": ran.answer.status if ran.answer else None,
                "origin": str(ran.step.origin),
            }
            for ran in decision.ran
        ],
        "consumer": decision.consumer,
        "outcome": "answered" if reply else "sent",
        "answer": reply
        and {
            "status": reply.status,
            "why": reply.why,
            "headers": list(map(list, reply.headers)),
            "body": reply.body,
        },
        "backend": sent
        and {
            "service": sent.service,
            "upstream": sent.upstream,
            "method": sent.method,
            "path": sent.path,
            "query": list(map(list, sent.query)),
            "host": sent.host,
            "headers": list(map(list, sent.headers)),
            "body": sent.body.decode(errors="replace"),
        },
        "answer_headers": list(map(list, decision.answer_headers)),
    }
