"""What Traefik's documents hold before names are looked up, and what files and resources read alike."""

from dataclasses import dataclass, field

from skylift.gateway.errors import nearest
from skylift.gateway.model import Listener
from skylift.gateway.policies import Redirect
from skylift.gateway.reading import Fields, Problems
from skylift.gateway.traefik.backends import Backends
from skylift.gateway.traefik.middlewares import ABSENT, TYPES, Policies
from skylift.gateway.traefik.tls import Tls

MAX_PRIORITY = 2**63 - 1001


@dataclass(frozen=True, slots=True)
class Chain:
    """A middleware that is others."""

    names: tuple[str, ...]
    at: Fields


@dataclass(frozen=True, slots=True)
class Router:
    """A router, its references not looked up. `space`: before the names it uses, or empty."""

    name: str
    rule: str
    at: Fields
    service: str
    middlewares: tuple[tuple[str, str], ...]  # (place, name)
    entry_points: tuple[str, ...]
    priority: int
    tls: bool
    options: str = "default"  # of TLS


@dataclass(slots=True)
class Found:
    """Everything of all documents."""

    problems: Problems
    routers: list[Router] = field(default_factory=list)
    middlewares: dict[str, tuple[Policies | Chain, Fields]] = field(default_factory=dict)
    backends: Backends = field(default_factory=Backends)
    listeners: dict[str, Listener] = field(default_factory=dict)
    redirections: dict[str, tuple[Fields, str, Redirect, int]] = field(default_factory=dict)
    entry_middlewares: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ports: dict[tuple[str, str], int] = field(default_factory=dict)  # of Kubernetes services, by name
    trusted: tuple[str, ...] = ()
    names: set[tuple[str, str]] = field(default_factory=set)
    tls: Tls = field(default_factory=Tls)

    def once(self, kind: str, name: str, at: Fields) -> None:
        if (kind, name) in self.names:
            at.wrong("", None, f"there is a {kind} {name} already", "duplicate_name")
        self.names.add((kind, name))


def refuse_old_rules(at: Fields) -> None:
    if at.text("ruleSyntax", "v3") != "v3":
        at.wrong("ruleSyntax", at.value.get("ruleSyntax"), "rules are version 3's", "not_supported")
    at.ignored("syntax")


def reads_tls(at: Fields) -> tuple[bool, str]:
    """Whether a router speaks https (it has a `tls` table, be it empty), and the name of its options."""
    if "tls" not in at.value:
        at.ignored("tls")
        return False, "default"
    table = at.table("tls")
    if table is None:
        return False, "default"
    if table.text("certResolver"):
        table.note("no_acme", "certificates are files: none is fetched", "certResolver")
    if table.text("secretName"):
        table.note("certificate_is_a_file", "the certificate of a secret is given to the listener as a file")
    table.ignored("domains", "store")
    options = _options(table)
    table.done()
    return True, options


def _options(at: Fields) -> str:
    """A name, in a resource with its namespace beside it."""
    if not isinstance(at.value.get("options"), dict):
        return at.text("options", "default").removesuffix("@file")
    inner = at.must_table("options")
    name, space = inner.text("name", required=True), inner.text("namespace")
    inner.done()
    return f"{space}/{name}" if space else name


def read_middleware(name: str, at: Fields, found: Found) -> None:
    """A middleware has exactly one type."""
    found.once("middleware", name, at)
    kinds = [kind for kind in at.value if at.value[kind] is not None]
    at.ignored(*at.value)
    if len(kinds) != 1:
        at.wrong("", None, f"a middleware has exactly one type, this one {', '.join(kinds) or 'none'}")
        return
    kind = kinds[0]
    if at.any_case:
        kind = next((known for known in (*TYPES, *ABSENT, "chain") if known.lower() == kind.lower()), kind)
    if kind == "chain":
        inner = at.must_table(kind)
        names = _chained(inner)
        inner.done()
        found.middlewares[name] = (Chain(names, inner), at)
        return
    if kind not in TYPES:
        if kind in ABSENT:
            at.wrong(kind, None, f"this middleware is not here: {ABSENT[kind]}", "not_supported")
        else:
            hint = nearest(kind, (*TYPES, *ABSENT, "chain"))
            at.wrong(kind, None, "there is no such middleware", "unknown_middleware_type", hint)
        found.middlewares[name] = ((), at)
        return
    inner = at.must_table(kind)
    policies = TYPES[kind](inner, name)
    inner.done()
    found.middlewares[name] = (policies, at)


def _chained(at: Fields) -> tuple[str, ...]:
    """Names, or in a resource tables with name and namespace."""
    value = at.value.get("middlewares")
    if not isinstance(value, list) or not any(isinstance(each, dict) for each in value):
        return at.texts("middlewares")
    names = []
    for entry in at.tables("middlewares"):
        space = entry.text("namespace")
        names.append((f"{space}/" if space else "") + entry.text("name", required=True))
        entry.done()
    return tuple(names)
