"""Where Traefik listens: `entryPoints` of its static configuration, certificates of its dynamic one."""

from typing import Protocol

from skylift.gateway.model import Listener
from skylift.gateway.reading import Fields
from skylift.gateway.text import is_network


class Listening(Protocol):
    """What is filled in."""

    listeners: dict[str, Listener]
    certificate: tuple[str, str]
    trusted: tuple[str, ...]


def read_entry_points(at: Fields, found: Listening) -> None:
    for name, table in at.named("entryPoints"):
        address, port = _address(table)
        http = table.must_table("http")
        tls = "tls" in http.value
        http.ignored("tls", "encodeQuerySemicolons", "sanitizePath", "maxHeaderBytes")
        http.lacking("redirections", "redirect by a router with the redirectScheme middleware")
        http.lacking("middlewares", "middlewares are the routers'")
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


def _address(at: Fields) -> tuple[str, int]:
    """`:8080`, `127.0.0.1:8080`, with `/tcp` or without."""
    text = at.text("address", required=True).removesuffix("/tcp")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        at.wrong("address", text, "it must be :port or address:port", "invalid_value")
        return "0.0.0.0", 80  # noqa: S104 - a default of the dialect
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what :port means


def read_tls(at: Fields, found: Listening) -> None:
    table = at.table("tls")
    if table is None:
        return
    for entry in table.tables("certificates"):
        pair = entry.text("certFile", required=True), entry.text("keyFile", required=True)
        entry.ignored("stores")
        entry.done()
        found.certificate = found.certificate if found.certificate[0] else pair
    table.ignored("options", "stores")
    table.done()
