"""What the helper is told, as JSON between two of our processes: policies there and back."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skylift.gateway.access import BasicAuth, Fault, Introspection, Refusals, Secret
from skylift.gateway.policies import (
    AddressFrom,
    Aggregate,
    Algorithm,
    Answer,
    Key,
    KeyKind,
    Limit,
    LimitHeaders,
    RateLimit,
    Redis,
    Source,
)
from skylift.gateway.template import Source as Hole
from skylift.gateway.template import Template, Var

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plans:
    """Every consumer its own limit: each limit once, with the header that says whose count it is; `of`:
    consumers, and which of them is theirs; `otherwise`: everybody else's, or none."""

    limits: tuple[tuple[RateLimit, str], ...]
    of: Mapping[str, int]
    otherwise: int | None

    def limit_of(self, consumer: str) -> tuple[RateLimit, str] | None:
        place = self.of.get(consumer, self.otherwise)
        return None if place is None else self.limits[place]


Rule = RateLimit | Plans | Introspection | BasicAuth | Aggregate
EVERYBODY = Key(KeyKind.EVERYBODY)


def name_of(rule: Json) -> str:
    """A rule's name is what it says."""
    return hashlib.sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()[:20]


def written(rule: Rule, **more: Any) -> Json:
    """A rule as JSON. `more`: what only the helper needs to know."""
    match rule:
        case RateLimit():
            said = {
                "kind": "limit",
                "bucket": rule.bucket,
                "algorithm": str(rule.algorithm),
                "limits": [[limit.count, limit.seconds, limit.burst, limit.name] for limit in rule.limits],
                "answer": _answer(rule.answer),
                "headers": str(rule.headers),
                "redis": asdict(rule.redis) if rule.redis else None,
                "fault_tolerant": rule.fault_tolerant,
                "counts_refused": rule.counts_refused,
                "max_delay": rule.max_delay,
                **_whose(rule.key),
            }
        case Plans():
            said = {
                "kind": "plans",
                "limits": [[written(limit), header] for limit, header in rule.limits],
                "of": dict(rule.of),
                "otherwise": rule.otherwise,
            }
        case Introspection():
            said = {
                "kind": "introspection",
                "url": rule.url,
                "client_id": rule.client_id,
                "client_secret": rule.client_secret,
                "refusals": _refusals(rule.refusals, (Fault.MISSING, Fault.UNKNOWN, Fault.FORBIDDEN)),
                "scopes": list(rule.scopes),
                "cache": rule.cache,
                "timeout": rule.timeout,
                "claim_headers": list(rule.claim_headers),
            }
        case BasicAuth():
            said = {
                "kind": "password",
                "users": {user.name: user.value for user in rule.users},
                "refusals": _refusals(rule.refusals, (Fault.MISSING, Fault.UNKNOWN)),
            }
        case Aggregate():
            said = {
                "kind": "aggregate",
                "timeout": rule.timeout,
                "sources": [
                    [source.name, source.service, template(source.path), source.required]
                    for source in rule.sources
                ],
            }
    return {**said, **more}


def _whose(key: Key) -> Json:
    """What is to be known of a key besides the header that says it: whether the client's address, which is
    always told, counts where there is none, and how much of an address."""
    clients = key.kind is KeyKind.CLIENT
    return {
        "else_client": key.else_client or (clients and not key.address.forwarded),
        "ipv6_prefix": key.address.ipv6_prefix if clients else 128,
    }


def limit_of(said: Mapping[str, Any]) -> RateLimit:
    """A limit again; whose count it is stands in a header."""
    return RateLimit(
        said["bucket"],
        Algorithm(said["algorithm"]),
        tuple(Limit(*limit) for limit in said["limits"]),
        Key(
            KeyKind.EVERYBODY,
            address=AddressFrom(ipv6_prefix=said["ipv6_prefix"]),
            else_client=said["else_client"],
        ),
        _answer_of(said["answer"]),
        LimitHeaders(said["headers"]),
        Redis(**said["redis"]) if said["redis"] else None,
        said["fault_tolerant"],
        said["counts_refused"],
        said["max_delay"],
    )


def read(said: Mapping[str, Any]) -> Rule:
    """The same rule again."""
    match said["kind"]:
        case "limit":
            return limit_of(said)
        case "plans":
            limits = tuple((limit_of(limit), header) for limit, header in said["limits"])
            return Plans(limits, said["of"], said["otherwise"])
        case "introspection":
            return Introspection(
                said["url"],
                said["client_id"],
                _refusals_of(said["refusals"]),
                said["client_secret"],
                tuple(said["scopes"]),
                said["cache"],
                said["timeout"],
                tuple((claim, header) for claim, header in said["claim_headers"]),
            )
        case "password":
            users = tuple(Secret(value, name=name) for name, value in said["users"].items())
            return BasicAuth(users, _refusals_of(said["refusals"]))
        case _:
            sources = (
                Source(name, service, template_of(path), needed)
                for name, service, path, needed in said["sources"]
            )
            return Aggregate(tuple(sources), said["timeout"])


def template(text: Template) -> list[Any]:
    return [part if isinstance(part, str) else [str(part.source), part.name, part.default] for part in text]


def template_of(said: list[Any]) -> Template:
    return tuple(part if isinstance(part, str) else Var(Hole(part[0]), part[1], part[2]) for part in said)


def _answer(answer: Answer) -> list[Any]:
    headers = [[name, template(value)] for name, value in answer.headers]
    return [answer.status, template(answer.body), answer.content_type, headers]


def _answer_of(said: list[Any]) -> Answer:
    status, body, content_type, headers = said
    told = tuple((name, template_of(value)) for name, value in headers)
    return Answer(status, template_of(body), content_type, told)


def _refusals(refusals: Refusals, faults: tuple[Fault, ...]) -> Json:
    told = {str(fault): _answer(refusals.answer(fault)) for fault in faults}
    return {"otherwise": _answer(refusals.otherwise), "by_fault": told}


def _refusals_of(said: Json) -> Refusals:
    told = tuple((Fault(fault), _answer_of(answer)) for fault, answer in said["by_fault"].items())
    return Refusals(_answer_of(said["otherwise"]), told)
