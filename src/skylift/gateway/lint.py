"""What is legal in a configuration, and still most likely wrong.

`lint(gateway)` gives findings, worst first: an error is a configuration that cannot do what it says (a
reference that leads nowhere, a route that never gets a request); a warning is a risk, or is meant to be
completed (nobody can pass yet); a note is worth knowing. Each check is a function of the gateway in
`CHECKS`; its code is stable.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from skylift.gateway.access import (
    Acl,
    ApiKey,
    Authenticator,
    BasicAuth,
    BotDetection,
    IpList,
    Jwt,
    PerConsumer,
    Policy,
    RequireClaim,
)
from skylift.gateway.conditions import All, Condition, Part, Test, tests
from skylift.gateway.explode import explodes
from skylift.gateway.implies import implies
from skylift.gateway.match import select
from skylift.gateway.model import Gateway, Origin, Route, Step
from skylift.gateway.policies import (
    Aggregate,
    Cors,
    ErrorPages,
    KeyKind,
    RateLimit,
    Redirect,
    ReplacePathRegex,
    Respond,
    StripPrefixRegex,
)
from skylift.gateway.request import make
from skylift.gateway.text import REGEXES

HEALTH = ("/health", "/healthz", "/livez", "/readyz", "/ready", "/live", "/ping", "/status")
SHORT_SECRET = 32  # bytes: RFC 7518 asks for the hash's own length with HS256
FEW = 3  # findings alike that are said one by one
MANY = 300  # routes: above, shadowing looks only where it is likely


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    code: str
    sentence: str
    origin: Origin

    def __str__(self) -> str:
        where = f"{self.origin}: " if str(self.origin) else ""
        return f"{self.severity}: {where}{self.sentence} [{self.code}]"


def lint(gateway: Gateway) -> tuple[Finding, ...]:
    """Every finding, worst first, each once."""
    found = [finding for check in CHECKS for finding in check(gateway)]
    order = list(Severity)
    once = dict.fromkeys(sorted(found, key=lambda finding: order.index(finding.severity)))
    return tuple(_gathered(once))


def _gathered(found: Iterable[Finding]) -> Iterator[Finding]:
    """What one plugin or middleware brings upon many routes is said once, with how many there are."""
    groups: dict[tuple[str, Origin], list[Finding]] = {}
    for finding in found:
        groups.setdefault((finding.code, finding.origin), []).append(finding)
    for same in groups.values():
        more = len(same) - 1
        if more < FEW:
            yield from same
        else:
            yield replace(same[0], sentence=f"{same[0].sentence} (and {more} more like it)")


def error(code: str, sentence: str, origin: Origin) -> Finding:
    return Finding(Severity.ERROR, code, sentence, origin)


def warning(code: str, sentence: str, origin: Origin) -> Finding:
    return Finding(Severity.WARNING, code, sentence, origin)


def steps(gateway: Gateway) -> Iterator[tuple[Route, int, Step, Policy]]:
    """Every policy of every route, plans unfolded, with its place in the order."""
    for route in gateway.routes:
        for place, step in enumerate(route.steps):
            for policy in unfolded(step.policy):
                yield route, place, step, policy


def unfolded(policy: Policy) -> Iterator[Policy]:
    if not isinstance(policy, PerConsumer):
        yield policy
        return
    for each in (policy.otherwise, *(plan for _, plan in policy.plans)):
        if each is not None:
            yield from unfolded(each)


# --- routes --------------------------------------------------------------------------------------------


def shadowed(gateway: Gateway) -> Iterator[Finding]:
    """Routes that never get a request, because an earlier one takes all of them."""
    ordered = gateway.ordered
    rivals = _Rivals(ordered)
    for place, route in enumerate(ordered):
        for earlier in rivals.before(place):
            if not _takes_all(earlier, route):
                continue
            both = implies(earlier.when, route.when) and earlier.rank == route.rank
            if both and earlier.name == route.name:
                continue  # one route, written with the same path twice
            word = "is equal to" if both else "never gets a request: all of them go to"
            code = "equal_routes" if both else "shadowed_route"
            yield error(code, f"route {route.name} {word} {earlier.name} ({earlier.origin})", route.origin)
            break


class _Rivals:
    """Which earlier routes may take all of a route: every one, or of very many those whose plain path is a
    beginning of its plain path, and those without a plain path. (2,000 routes are two million pairs: 7 s.)"""

    def __init__(self, ordered: tuple[Route, ...]) -> None:
        self.ordered = ordered
        self.paths = [_plain_paths(route.when) for route in ordered] if len(ordered) > MANY else []
        self.by_path: dict[str, list[int]] = {}
        self.pathless: list[int] = []
        for place, paths in enumerate(self.paths):
            for path in paths:
                self.by_path.setdefault(path, []).append(place)
            if not paths:
                self.pathless.append(place)

    def before(self, place: int) -> Iterator[Route]:
        if not self.paths:
            yield from self.ordered[:place]
            return
        found = set(self.pathless)
        for path in self.paths[place]:
            for end in range(1, len(path) + 1):
                found.update(self.by_path.get(path[:end], ()))
        yield from (self.ordered[other] for other in sorted(found) if other < place)


def _plain_paths(when: Condition) -> tuple[str, ...]:
    """The paths that a condition asks for in any case, where they are plain."""
    for part in when.of if isinstance(when, All) else (when,):
        if not isinstance(part, Test) or part.part is not Part.PATH:
            continue
        if not any(text.kind in REGEXES or text.ignore_case for text in part.texts):
            return tuple(text.value for text in part.texts)
    return ()


def _takes_all(earlier: Route, route: Route) -> bool:
    schemes = set(route.schemes) <= set(earlier.schemes)
    listeners = not earlier.listeners or (
        bool(route.listeners) and set(route.listeners) <= set(earlier.listeners)
    )
    return schemes and listeners and implies(route.when, earlier.when)


def dangling(gateway: Gateway) -> Iterator[Finding]:
    """References that lead nowhere."""
    for route in gateway.routes:
        named = [*(to.service for to in route.to), *(mirror.service for mirror in route.mirrors)]
        for name in named:
            if name not in gateway.services:
                yield error(
                    "unknown_service", f"route {route.name}: there is no service {name}", route.origin
                )
        if not route.to and not any(isinstance(step.policy, Respond | Redirect) for step in route.steps):
            yield error(
                "no_backend", f"route {route.name} leads to no service and answers nothing", route.origin
            )
    for service in gateway.services.values():
        if service.upstream not in gateway.upstreams:
            sentence = f"service {service.name}: there is no upstream {service.upstream}"
            yield error("unknown_upstream", sentence, service.origin)
    for upstream in gateway.upstreams.values():
        if not any(target.weight for target in upstream.targets):
            yield error(
                "no_targets", f"upstream {upstream.name} has no target with a weight", upstream.origin
            )
        if upstream.fallback and upstream.fallback not in gateway.upstreams:
            sentence = f"upstream {upstream.name}: there is no upstream {upstream.fallback}"
            yield error("unknown_upstream", sentence, upstream.origin)
    for route, _, step, policy in steps(gateway):
        for name in _services_of(policy):
            if name not in gateway.services:
                sentence = f"{step.name} of route {route.name}: there is no service {name}"
                yield error("unknown_service", sentence, step.origin)


def _services_of(policy: Policy) -> tuple[str, ...]:
    if isinstance(policy, ErrorPages):
        return (policy.service,)
    return tuple(source.service for source in policy.sources) if isinstance(policy, Aggregate) else ()


def explosive(gateway: Gateway) -> Iterator[Finding]:
    """Regexes that take exponential time elsewhere."""
    for route in gateway.routes:
        for test in tests(route.when):
            for text in test.texts:
                if text.kind in REGEXES and explodes(text.value):
                    yield warning(
                        "explosive_regex", _explosive(text.value, f"route {route.name}"), route.origin
                    )
    for _, _, step, policy in steps(gateway):
        for regex in _regexes_of(policy):
            if explodes(regex):
                yield warning("explosive_regex", _explosive(regex, step.name), step.origin)


def _explosive(regex: str, where: str) -> str:
    return (
        f"{where}: {regex} repeats what is repeated inside: linear here (RE2), exponential where it is not; "
        "one repetition says the same"
    )


def _regexes_of(policy: Policy) -> tuple[str, ...]:
    match policy:
        case StripPrefixRegex(regexes):
            return regexes
        case BotDetection(allow, deny):
            return (*allow, *deny)
        case ReplacePathRegex(regex, _):
            return (regex,)
        case Redirect(regex=regex) if regex:
            return (regex,)
        case _:
            return ()


# --- who can pass --------------------------------------------------------------------------------------


def locked_out(gateway: Gateway) -> Iterator[Finding]:
    """Policies that nobody can pass."""
    groups = {group for consumer in gateway.consumers.values() for group in consumer.groups}
    for route, _, step, policy in steps(gateway):
        reason = ""
        match policy:
            case Jwt(keys=(), anonymous=None):
                reason = (
                    "no signer is known (jwt_secrets of a consumer, or a key set): every token is refused"
                )
            case ApiKey(keys=(), anonymous=None):
                reason = "no key is known: everybody is refused"
            case BasicAuth(users=(), anonymous=None):
                reason = "no user is known: everybody is refused"
            case Acl(allow, _) if allow and not groups & set(allow):
                reason = f"no consumer is in {' or '.join(allow)}: everybody is refused"
            case IpList(allow, deny) if allow and all(_covered(net, deny) for net in allow):
                reason = "all that is allowed is denied: everybody is refused"
        if reason:
            yield warning("locks_everyone_out", f"{step.name} of route {route.name}: {reason}", step.origin)


def _covered(network: str, by: tuple[str, ...]) -> bool:
    from skylift.gateway.implies import covers
    from skylift.gateway.text import Kind, Text

    return any(covers(Text(Kind.NETWORK, wide), Text(Kind.NETWORK, network)) for wide in by)


def _authenticates(policy: Policy) -> bool:
    return isinstance(policy, Authenticator)


def limits(gateway: Gateway) -> Iterator[Finding]:
    """Limits that count the wrong ones together."""
    for route, place, step, policy in steps(gateway):
        if not isinstance(policy, RateLimit):
            continue
        where = f"{step.name} of route {route.name}"
        smallest = min(policy.limits, key=lambda limit: limit.count / limit.seconds)
        rate = f"{smallest.count} per {smallest.seconds:g} s"
        shared = policy.key.kind in (KeyKind.EVERYBODY, KeyKind.HOST)
        unnamed = policy.key.kind is KeyKind.HEADER and not policy.key.else_client
        if shared or unnamed:
            who = "all clients" if shared else f"all clients without {policy.key.name}"
            sentence = f"{where}: {who} share {rate}: one busy client locks the others out"
            yield warning("shared_limit", sentence, step.origin)
        before = route.steps[:place]
        known = any(_authenticates(inner) for each in before for inner in unfolded(each.policy))
        if policy.key.kind in (KeyKind.CONSUMER, KeyKind.CREDENTIAL) and not known:
            sentence = (
                f"{where} counts per {policy.key.kind}, but nobody is authenticated before it: it counts per "
                "address, and clients behind one address share it"
            )
            yield warning("limit_without_consumer", sentence, step.origin)
        if policy.redis is None:
            sentence = f"{where}: counted in each gateway by itself: with n gateways n times {rate} may pass"
            yield Finding(Severity.NOTE, "local_limit", sentence, step.origin)


def health(gateway: Gateway) -> Iterator[Finding]:
    """Health endpoints that ask for credentials."""
    written = {
        text.value
        for route in gateway.routes
        for test in tests(route.when)
        if test.part is Part.PATH
        for text in test.texts
        if text.kind not in REGEXES and text.value.rstrip("/").endswith(HEALTH)
    }
    for path in sorted({*HEALTH, *written}):
        route, _ = select(gateway.ordered, make(url=path))
        if route is None:
            continue
        for step in route.steps:
            if any(_authenticates(policy) for policy in unfolded(step.policy)):
                sentence = (
                    f"GET {path} goes to route {route.name} and needs credentials ({step.name}): a health "
                    "check has none; give it a route of its own"
                )
                yield warning("health_behind_authentication", sentence, step.origin)
                break


def order(gateway: Gateway) -> Iterator[Finding]:
    """Policies that run before what they need."""
    for route, place, step, policy in steps(gateway):
        needs = isinstance(policy, Acl | RequireClaim)
        before = route.steps[:place]
        if needs and not any(_authenticates(each) for s in before for each in unfolded(s.policy)):
            sentence = (
                f"{step.name} of route {route.name}: nobody is authenticated before it: all are refused"
            )
            yield error("acl_without_authentication", sentence, step.origin)


# --- secrets and other risks ---------------------------------------------------------------------------


def secrets(gateway: Gateway) -> Iterator[Finding]:
    """Secrets that stand in files, and short ones."""
    filled = {note.origin.file for note in gateway.notes if note.code == "filled"}
    for route, _, step, policy in steps(gateway):
        if isinstance(policy, Jwt):
            for key in policy.keys:
                if key.secret and len(key.secret) < SHORT_SECRET:
                    sentence = (
                        f"the secret of {key.name} has {len(key.secret)} bytes: it can be guessed; "
                        f"{SHORT_SECRET} or more are right for HMAC"
                    )
                    yield warning("weak_secret", sentence, step.origin)
            if "exp" not in policy.verify and policy.keys:
                sentence = f"{step.name} of route {route.name}: exp is not looked at: a token lives for ever"
                yield warning("tokens_without_end", sentence, step.origin)
            clear = sum(1 for key in policy.keys if key.secret)
            kind = "token secrets"
        elif isinstance(policy, ApiKey):
            clear, kind = len(policy.keys), "API keys"
        else:
            continue
        if clear and step.origin.file not in filled:
            sentence = f"{clear} {kind} stand in clear in the files: whoever reads them is everybody"
            yield warning("secret_in_clear", sentence, Origin(step.origin.file))


def cross_origin(gateway: Gateway) -> Iterator[Finding]:
    for route, _, step, policy in steps(gateway):
        if isinstance(policy, Cors) and policy.credentials and "*" in policy.origins:
            sentence = (
                f"{step.name} of route {route.name}: credentials for every origin (*): any page may act"
            )
            yield warning("open_credentials", sentence, step.origin)


def listening(gateway: Gateway) -> Iterator[Finding]:
    for listener in gateway.listeners:
        if listener.tls and not listener.certificate:
            sentence = f"listener {listener.name} speaks TLS and has no certificate"
            yield warning("no_certificate", sentence, listener.origin)
    names = {listener.name for listener in gateway.listeners}
    for route in gateway.routes:
        for name in route.listeners:
            if name not in names:
                yield error(
                    "unknown_listener", f"route {route.name}: there is no listener {name}", route.origin
                )


def notes(gateway: Gateway) -> Iterator[Finding]:
    for note in gateway.notes:
        yield Finding(Severity.NOTE, note.code, note.sentence, note.origin)


CHECKS: tuple[Callable[[Gateway], Iterator[Finding]], ...] = (
    dangling,
    shadowed,
    order,
    locked_out,
    limits,
    health,
    explosive,
    secrets,
    cross_origin,
    listening,
    notes,
)


def counts(findings: tuple[Finding, ...]) -> Mapping[Severity, int]:
    """How many of each."""
    return {severity: sum(1 for each in findings if each.severity is severity) for severity in Severity}
