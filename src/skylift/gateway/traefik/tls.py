"""TLS as Traefik has it: versions and clients' certificates (`tls.options`, TLSOption), several certificates.

Traefik chooses options by router; a listener here has one set. It has the options that all its routers name,
or `default`; routers of one entry point that name different ones are refused, because to leave out the
stricter would let in who must not come.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from skylift.gateway.errors import nearest
from skylift.gateway.model import Listener
from skylift.gateway.reading import Fields

DEFAULT = "default"
_VERSIONS = {"VersionTLS10": "1.0", "VersionTLS11": "1.1", "VersionTLS12": "1.2", "VersionTLS13": "1.3"}
_CLIENTS = {"NoClientCert": None, "VerifyClientCertIfGiven": True, "RequireAndVerifyClientCert": False}
OLDEST = "1.2"  # of a gateway of ours


@dataclass(frozen=True, slots=True)
class Options:
    """`client_ca`: clients show a certificate of it, or, with `client_optional`, none."""

    oldest: str = OLDEST
    newest: str = ""
    client_ca: str = ""
    client_optional: bool = False


@dataclass(slots=True)
class Tls:
    """What is read: options by name, certificates in their order, the default one before them."""

    options: dict[str, Options] = field(default_factory=dict)
    certificates: list[tuple[str, str]] = field(default_factory=list)


class Router(Protocol):
    """What is looked at of a router."""

    @property
    def at(self) -> Fields: ...
    @property
    def tls(self) -> bool: ...
    @property
    def options(self) -> str: ...
    @property
    def entry_points(self) -> tuple[str, ...]: ...


def read_options(at: Fields) -> Options:
    """One entry of `tls.options`, or the `spec` of a TLSOption."""
    oldest = _version(at, "minVersion", OLDEST)
    if oldest < OLDEST:
        at.note("older_tls", f"older than TLS {OLDEST} is not spoken here", "minVersion")
    for name in ("cipherSuites", "curvePreferences", "sniStrict"):
        if at.has(name):
            at.note("own_ciphers", f"{name}: ciphers, curves and names are the gateway's own choice", name)
    at.ignored("preferServerCipherSuites", "disableSessionTickets")
    at.lacking("alpnProtocols", "h2 and http/1.1 are offered", (None, ["h2", "http/1.1"], ["http/1.1", "h2"]))
    newest = _version(at, "maxVersion", "")
    client = _clients(at.must_table("clientAuth"))
    at.done()
    return replace(client, oldest=max(oldest, OLDEST), newest=newest)


def _version(at: Fields, name: str, default: str) -> str:
    word = at.word(name, _VERSIONS, "")
    return _VERSIONS.get(word, default)


def _clients(at: Fields) -> Options:
    files, kind = at.texts("caFiles", single=True), at.text("clientAuthType", "NoClientCert")
    at.lacking("secretNames", "there is no cluster to ask for a secret: authorities are files (caFiles)")
    if kind in ("RequestClientCert", "RequireAnyClientCert"):
        rule = "a certificate that nobody verifies says nothing"
        at.wrong("clientAuthType", kind, rule, "not_supported")
    elif kind not in _CLIENTS:
        at.wrong("clientAuthType", kind, f"it must be one of {', '.join(_CLIENTS)}")
    optional = _CLIENTS.get(kind)
    if optional is not None and len(files) != 1:
        at.wrong("caFiles", list(files), "one file, with all authorities in it")
    at.done()
    if optional is None or not files:
        return Options()
    return Options(client_ca=files[0], client_optional=optional)


def read_tls(at: Fields, found: Tls) -> None:
    """`tls` of a file."""
    table = at.table("tls")
    if table is None:
        return
    for entry in table.tables("certificates"):
        found.certificates.append(_pair(entry))
        entry.ignored("stores")
        entry.done()
    for name, entry in table.named("options"):
        found.options[name] = read_options(entry)
    for name, entry in table.named("stores"):
        first = entry.table("defaultCertificate")
        if first is not None and name == DEFAULT:
            found.certificates.insert(0, _pair(first))
            first.done()
        elif first is not None:
            entry.wrong("defaultCertificate", None, "there is one store, named default", "not_supported")
        entry.lacking("defaultGeneratedCert", "certificates are files: none is fetched")
        entry.done()
    table.done()


def _pair(at: Fields) -> tuple[str, str]:
    return at.text("certFile", required=True), at.text("keyFile", required=True)


def secured(listeners: Mapping[str, Listener], routers: Iterable[Router], found: Tls) -> tuple[Listener, ...]:
    """The listeners, those with TLS with certificates and options."""
    of_tls = [router for router in routers if router.tls]
    for router in of_tls:
        if router.options not in (*found.options, DEFAULT):
            hint = nearest(router.options, found.options)
            rule = "there are no TLS options of this name"
            router.at.wrong("tls.options", router.options, rule, "unknown_tls_options", hint)
    return tuple(_secured(each, of_tls, found) if each.tls else each for each in listeners.values())


def _secured(listener: Listener, routers: Iterable[Router], found: Tls) -> Listener:
    mine = [each for each in routers if not each.entry_points or listener.name in each.entry_points]
    names = list(dict.fromkeys(router.options for router in mine)) or [DEFAULT]
    for router in mine:
        if router.options != names[0]:
            rule = f"another router of {listener.name} has {names[0]}: one entry point has one set of options"
            router.at.wrong("tls.options", router.options, rule, "not_supported")
    options = found.options.get(names[0], Options())
    pairs = list(dict.fromkeys(found.certificates))
    certificate, key = pairs[0] if pairs else ("", "")
    return replace(
        listener,
        certificate=certificate,
        key=key,
        further=tuple(pairs[1:]),
        oldest_tls=options.oldest,
        newest_tls=options.newest,
        client_ca=options.client_ca,
        client_optional=options.client_optional,
    )
