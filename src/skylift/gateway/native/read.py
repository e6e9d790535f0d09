"""From native files to the model.

Routes are tried in the order they are written; `priority` (0 if not given) goes before it. A route's `path`
is a prefix of whole segments: /api takes /api and /api/x, not /apix. `rule` takes an expression of Traefik's
grammar instead of single fields. Policies run in the order they are listed: those of the file (`policies`),
then the route's. A name there stands for an entry of `shared`. Names may stand in any of the files.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from skylift.gateway.access import ApiKey, PerConsumer, Policy, Secret
from skylift.gateway.conditions import All, Condition, Not, Part, Test
from skylift.gateway.errors import nearest
from skylift.gateway.inventory import read_inventory
from skylift.gateway.loading import Document
from skylift.gateway.model import (
    Consumer,
    Destination,
    Dialect,
    Forwarding,
    Gateway,
    Listener,
    Mirror,
    Route,
    Step,
)
from skylift.gateway.native import answers
from skylift.gateway.native.backends import Backends, read_service
from skylift.gateway.native.policies import TYPES
from skylift.gateway.policies import Key, KeyKind, RateLimit
from skylift.gateway.reading import Fields, Problems
from skylift.gateway.request import normal_path
from skylift.gateway.text import Kind, Text, is_network
from skylift.gateway.traefik.rule import RuleFault
from skylift.gateway.traefik.rule import parse as parse_rule

TOP_LEVEL = ("gateway",)
VERSION = 1


@dataclass(slots=True)
class Found:
    """Everything of all documents, names not looked up."""

    problems: Problems
    backends: Backends = field(default_factory=Backends)
    listeners: list[Listener] = field(default_factory=list)
    consumers: dict[str, Consumer] = field(default_factory=dict)
    keys: list[Secret] = field(default_factory=list)
    plans: dict[str, Policy] = field(default_factory=dict)
    shared: dict[str, Step] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    routes: list[Fields] = field(default_factory=list)
    trusted: tuple[str, ...] = ()
    inventory: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read(documents: Iterable[Document]) -> Gateway:
    """One configuration from all documents; `Refused` with every problem there is."""
    found = Found(Problems())
    files = [Fields.of(document, found.problems) for document in documents]
    for read_part in (_read_backends, _read_consumers, _read_shared, _read_routes):
        for at in files:
            read_part(at, found)
    made = Gateway(
        Dialect.NATIVE,
        tuple(_route(at, number, found) for number, at in enumerate(found.routes)),
        services=found.backends.services,
        upstreams=found.backends.upstreams,
        consumers=found.consumers,
        listeners=tuple(found.listeners) or (Listener("web", 8080),),
        not_found=answers.NOT_FOUND,
        answers=answers.OWN,
        forwarding=Forwarding(consumer_headers=True, trusted=found.trusted),
        notes=tuple(found.problems.notes),
        inventory=found.inventory,
    )
    found.problems.check()
    return made


def _read_backends(at: Fields, found: Found) -> None:
    if at.whole("gateway", VERSION) != VERSION:
        at.wrong("gateway", at.value.get("gateway"), f"this is version {VERSION} of the form")
    found.listeners += [_listener(table) for table in at.tables("listen")]
    found.trusted = (*found.trusted, *at.each("trusted_proxies", _network))
    found.inventory |= read_inventory(at)
    for name, table in at.named("services"):
        if name in found.backends.services:
            table.wrong("", None, f"there is a service {name} already", "duplicate_name")
        read_service(name, table, found.backends)
    for name, table in at.named("plans"):
        found.plans[name] = TYPES["limit"](table, f"plan {name}")
        table.done()


def _read_consumers(at: Fields, found: Found) -> None:
    for name, table in at.named("consumers"):
        _consumer(name, table, found)


def _read_shared(at: Fields, found: Found) -> None:
    for name, table in at.named("shared"):
        step = _step(table, name, found)
        if step:
            found.shared[name] = replace(step, name=name)


def _read_routes(at: Fields, found: Found) -> None:
    found.steps += _steps(at, found, "file")
    found.routes += at.tables("routes")
    at.done()


def _network(text: str) -> str | None:
    return None if is_network(text) else "it must be an address or a network such as 10.0.0.0/8"


def _listener(at: Fields) -> Listener:
    certificate, key = at.text("certificate"), at.text("key")
    if bool(certificate) != bool(key):
        at.wrong("key", None, "certificate and key go together", "missing_field")
    port = at.whole("port", 8080, low=1, high=65535)
    made = Listener(
        at.text("name") or f"port-{port}",
        port,
        at.text("address", "0.0.0.0"),  # noqa: S104 - a gateway is there to be reached
        bool(certificate),
        certificate,
        key,
        at.text("client_ca"),
        at.flag("client_optional", False),
        at.origin,
    )
    if made.client_ca and not made.tls:
        at.wrong("client_ca", made.client_ca, "clients show certificates only where the listener speaks TLS")
    at.done()
    return made


def _consumer(name: str, at: Fields, found: Found) -> None:
    plan = at.text("plan")
    if plan and plan not in found.plans:
        at.wrong("plan", plan, "there is no plan of this name", "unknown_plan", nearest(plan, found.plans))
    for number, key in enumerate(at.texts("keys")):
        if any(known.value == key for known in found.keys):
            at.wrong(f"keys[{number}]", None, "another consumer has this key")
        found.keys.append(Secret(key, name))
    found.consumers[name] = Consumer(name, groups=at.texts("groups"), plan=plan, origin=at.origin)
    at.done()


# --- policies ------------------------------------------------------------------------------------------


def _steps(at: Fields, found: Found, place: str) -> list[Step]:
    """`policies`: names of shared ones, and tables of one type each."""
    value = at.raw("policies")
    if value is None:
        return []
    if not isinstance(value, list):
        at.wrong("policies", value, "it must be a list")
        return []
    steps: list[Step] = []
    for number, entry in enumerate(value):
        name = f"policies[{number}]"
        if isinstance(entry, str):
            if entry in found.shared:
                steps.append(found.shared[entry])
            else:
                hint = nearest(entry, found.shared)
                at.wrong(name, entry, "there is no shared policy of this name", "unknown_policy", hint)
        elif isinstance(entry, dict):
            table = Fields(at.document, at.where(name), entry, at.problems)
            step = _step(table, f"{place}-{number}", found)
            steps += [step] if step else []
        else:
            at.wrong(name, entry, "it must be the name of a shared policy, or a table with its type")
    return steps


def _step(at: Fields, bucket: str, found: Found) -> Step | None:
    kinds = list(at.value)
    at.ignored(*kinds)
    if len(kinds) != 1:
        at.wrong("", None, f"a policy has exactly one type, this one {', '.join(kinds) or 'none'}")
        return None
    kind = kinds[0]
    if kind == "plan":
        return _plan_step(at, found)
    if kind not in TYPES:
        at.wrong(
            kind, None, "there is no such policy", "unknown_policy_type", nearest(kind, (*TYPES, "plan"))
        )
        return None
    inner = at.table_or_empty(kind)
    if inner is None:
        return None
    policy = TYPES[kind](inner, bucket)
    inner.done()
    if isinstance(policy, ApiKey):
        policy = replace(policy, keys=tuple(found.keys))
    return Step(kind, policy, at.origin)


def _plan_step(at: Fields, found: Found) -> Step | None:
    """`plan`: every consumer its own plan's limit; `otherwise` names the plan of everybody else."""
    inner = at.table_or_empty("plan")
    if inner is None:
        return None
    rest = inner.text("otherwise")
    if rest and rest not in found.plans:
        hint = nearest(rest, found.plans)
        inner.wrong("otherwise", rest, "there is no plan of this name", "unknown_plan", hint)
    inner.done()
    plans = tuple(
        (consumer.name, _by_consumer(found.plans[consumer.plan]))
        for consumer in found.consumers.values()
        if consumer.plan in found.plans
    )
    return Step("plan", PerConsumer(found.plans.get(rest), plans), at.origin)


def _by_consumer(policy: Policy) -> Policy:
    """A plan is each consumer's own, never shared among those who have it."""
    return replace(policy, key=Key(KeyKind.CONSUMER)) if isinstance(policy, RateLimit) else policy


# --- routes --------------------------------------------------------------------------------------------


def _route(at: Fields, number: int, found: Found) -> Route:
    name = at.text("name") or f"route-{number + 1}"
    when = _condition(at)
    steps = (*found.steps, *_steps(at, found, name))
    to = _destinations(at, found)
    mirrors = _mirrors(at, found)
    schemes = at.each(
        "schemes", lambda text: None if text in ("http", "https") else "it must be http or https"
    )
    made = Route(
        name,
        when,
        to,
        steps,
        rank=(at.whole("priority", 0, low=-(2**31), high=2**31),),
        schemes=schemes or ("http", "https"),
        listeners=at.texts("listen"),
        mirrors=mirrors,
        written=str(when),
        origin=at.origin,
    )
    at.done()
    return made


_PATHS = (("path", Kind.SEGMENT), ("path_exact", Kind.EXACT), ("path_prefix", Kind.PREFIX))


def _condition(at: Fields) -> Condition:
    found: list[Condition] = []
    for field_name, kind in _PATHS:
        paths = at.each(field_name, _path_fault) if isinstance(at.value.get(field_name), list) else ()
        if not paths and at.has(field_name):
            single = at.text(field_name)
            fault = _path_fault(single)
            if fault:
                at.wrong(field_name, single, fault)
            paths = (single,)
        if paths:
            found.append(Test(Part.PATH, tuple(Text(kind, path) for path in paths)))
    regex = at.text("path_regex")
    if regex and at.regex("path_regex", regex):
        found.append(Test(Part.PATH, (Text(Kind.REGEX_FULL, regex),)))
    found += _hosts(at)
    methods = at.texts("methods", single=True)
    if methods:
        found.append(Test(Part.METHOD, tuple(Text(Kind.EXACT, name.upper()) for name in methods)))
    found += _pairs(at, "headers", Part.HEADER)
    found += _pairs(at, "query", Part.QUERY)
    clients = at.each("clients", _network)
    if clients:
        found.append(Test(Part.CLIENT, tuple(Text(Kind.NETWORK, network) for network in clients)))
    rule = at.text("rule")
    if rule:
        try:
            found.append(parse_rule(rule))
        except RuleFault as e:
            at.wrong("rule", rule, str(e), "bad_rule")
    return found[0] if len(found) == 1 else All(tuple(found))


def _path_fault(path: str) -> str | None:
    if not path.startswith("/"):
        return "a path begins with /"
    return None if normal_path(path) == path else f"requests have it as {normal_path(path)}"


def _hosts(at: Fields) -> list[Condition]:
    hosts = at.texts("hosts", single=True)
    texts = [
        Text(Kind.SUFFIX, host[1:].lower()) if host.startswith("*.") else Text(Kind.EXACT, host.lower())
        for host in hosts
    ]
    return [Test(Part.HOST, tuple(texts))] if texts else []


def _pairs(at: Fields, name: str, part: Part) -> list[Condition]:
    """`headers: {X-Version: [v1, v2], X-Debug: true, X-Old: false}`: values, presence, absence."""
    table = at.table(name)
    found: list[Condition] = []
    for key in table.value if table else ():
        assert table is not None  # there is a key in it
        value = table.raw(key)
        present = Test(part, (Text(Kind.PRESENT),), key)
        if value is True:
            found.append(present)
        elif value is False:
            found.append(Not(present))
        else:
            texts = tuple(Text(Kind.EXACT, text) for text in table.texts(key, single=True))
            found.append(Test(part, texts, key))
    return found


def _destinations(at: Fields, found: Found) -> tuple[Destination, ...]:
    value = at.raw("to")
    if value is None:
        return ()
    if isinstance(value, str):
        pairs = [("to", value, 1)]
    else:
        pairs = []
        for number, entry in enumerate(at.tables("to")):
            service, weight = entry.text("service", required=True), entry.whole("weight", 1, high=10_000)
            pairs.append((f"to[{number}].service", service, weight))
            entry.done()
    for place, service, _ in pairs:
        _known(at, place, service, found)
    return tuple(Destination(service, weight) for _, service, weight in pairs)


def _mirrors(at: Fields, found: Found) -> tuple[Mirror, ...]:
    mirrors = []
    for number, entry in enumerate(at.tables("mirror")):
        service, percent = entry.text("service", required=True), entry.number("percent", 100, high=100)
        _known(at, f"mirror[{number}].service", service, found)
        mirrors.append(Mirror(service, percent))
        entry.done()
    return tuple(mirrors)


def _known(at: Fields, place: str, service: str, found: Found) -> None:
    if service not in found.backends.services:
        hint = nearest(service, found.backends.services)
        at.wrong(place, service, "there is no service of this name", "unknown_service", hint)
