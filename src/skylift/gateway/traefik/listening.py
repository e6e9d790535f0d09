"""Where Traefik listens: `entryPoints` of its static configuration, what holds for all their routers."""

from skylift.gateway.model import Listener
from skylift.gateway.policies import Redirect
from skylift.gateway.reading import Fields
from skylift.gateway.text import is_network
from skylift.gateway.traefik.found import MAX_PRIORITY, Found


def read_entry_points(at: Fields, found: Found) -> None:
    for name, table in at.named("entryPoints"):
        address, port = _address(table)
        http = table.must_table("http")
        tls = "tls" in http.value
        http.ignored("tls", "encodeQuerySemicolons", "sanitizePath", "maxHeaderBytes")
        _redirections(name, http, found)
        found.entry_middlewares[name] = http.texts("middlewares")
        http.done()
        forwarded = table.must_table("forwardedHeaders")
        trusted = forwarded.each(
            "trustedIPs", lambda text: None if is_network(text) else "it must be an address or a network"
        )
        found.trusted = (*found.trusted, *trusted)
        if forwarded.flag("insecure", False):
            found.trusted = (*found.trusted, "0.0.0.0/0", "::/0")
        forwarded.ignored("connection", "notAppendXForwardedFor")
        forwarded.done()
        table.ignored("asDefault", "transport", "http2", "observability", "reusePort", "allowACMEByPass")
        table.lacking("http3", "HTTP/3 is not served")
        table.lacking("udp", "only HTTP is routed here")
        table.lacking("proxyProtocol", "the PROXY protocol is not read")
        table.done()
        found.listeners[name] = Listener(name, port, address, tls or port == 443, origin=table.origin)


def _redirections(name: str, at: Fields, found: Found) -> None:
    """Everything that comes in here is sent to another entry point, before any router is looked for."""
    outer = at.table("redirections")
    table = outer.table("entryPoint") if outer else None
    if outer is None or table is None:
        return
    to, scheme = table.text("to", required=True), table.word("scheme", ("http", "https"), "https")
    status = 301 if table.flag("permanent", True) else 302
    priority = table.whole("priority", MAX_PRIORITY, low=-MAX_PRIORITY, high=MAX_PRIORITY)
    redirect = Redirect(status, scheme=scheme, keeps_method=True)
    found.redirections[name] = (table, to, redirect, priority)
    table.done()
    outer.done()


def _address(at: Fields) -> tuple[str, int]:
    """`:8080`, `127.0.0.1:8080`, with `/tcp` or without."""
    text = at.text("address", required=True).removesuffix("/tcp")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        at.wrong("address", text, "it must be :port or address:port", "invalid_value")
        return "0.0.0.0", 80  # noqa: S104 - a default of the dialect
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what :port means
