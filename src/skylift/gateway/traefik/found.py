"""What Traefik's documents hold before names are looked up, and what files and resources read alike."""

from dataclasses import dataclass, field

from skylift.gateway.errors import nearest
from skylift.gateway.model import Listener
from skylift.gateway.reading import Fields, Problems
from skylift.gateway.traefik.backends import Backends
from skylift.gateway.traefik.middlewares import ABSENT, TYPES, Policies

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


@dataclass(slots=True)
class Found:
    """Everything of all documents."""

    problems: Problems
    routers: list[Router] = field(default_factory=list)
    middlewares: dict[str, tuple[Policies | Chain, Fields]] = field(default_factory=dict)
    backends: Backends = field(default_factory=Backends)
    listeners: dict[str, Listener] = field(default_factory=dict)
    certificate: tuple[str, str] = ("", "")
    trusted: tuple[str, ...] = ()
    names: set[tuple[str, str]] = field(default_factory=set)

    def once(self, kind: str, name: str, at: Fields) -> None:
        if (kind, name) in self.names:
            at.wrong("", None, f"there is a {kind} {name} already", "duplicate_name")
        self.names.add((kind, name))


def refuse_old_rules(at: Fields) -> None:
    if at.text("ruleSyntax", "v3") != "v3":
        at.wrong("ruleSyntax", at.value.get("ruleSyntax"), "rules are version 3's", "not_supported")
    at.ignored("syntax")


def reads_tls(at: Fields) -> bool:
    """Whether a router speaks https: it has a `tls` table, be it empty, or `tls: true` (never written so)."""
    if "tls" not in at.value:
        at.ignored("tls")
        return False
    table = at.table("tls")
    if table is None:
        return False
    if table.text("certResolver"):
        table.note("no_acme", "certificates are files: none is fetched", "certResolver")
    if table.text("secretName"):
        table.note("certificate_is_a_file", "the certificate of a secret is given to the listener as a file")
    table.ignored("options", "domains", "store")
    table.done()
    return True


def read_middleware(name: str, at: Fields, found: Found) -> None:
    """A middleware has exactly one type."""
    found.once("middleware", name, at)
    kinds = [kind for kind in at.value if at.value[kind] is not None]
    at.ignored(*at.value)
    if len(kinds) != 1:
        at.wrong("", None, f"a middleware has exactly one type, this one {', '.join(kinds) or 'none'}")
        return
    kind = kinds[0]
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
