"""What a proxy in front says of a client's TLS certificate: believed from configured proxies only.

The server's own TLS verifies client certificates, and the application hears nothing of them. So TLS ends at a
proxy (Envoy), which verifies the certificate by our authorities and says so in `x-forwarded-client-cert`.
Any client can write that header as well: it counts only from an address in `trusted_proxies`, with the
shared secret beside it where there is one, once, with one element; in every other case it is taken off
before anybody sees it. What goes on is the certificate's fingerprint alone: whose it is, and whether it is
still good, is looked up in our own database, so a revoked certificate is refused at once, whatever list the
proxy has.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from skylift.core.errors import invalid

SAID, SECRET = b"x-forwarded-client-cert", b"x-skylift-proxy-secret"
CERTIFICATE = "skylift.certificate"  # in the scope: the fingerprint of the certificate, where one was shown
MIN_SECRET = 16
_HASH = re.compile(rb"(?:^|;)Hash=([0-9a-f]{64})(?=;|$)", re.ASCII | re.IGNORECASE)
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Hop:
    """Whom to believe. Without proxies nobody."""

    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    secret: bytes = b""

    @classmethod
    def read(cls, proxies: str, secret: str) -> "Hop":
        """From settings: networks, separated by commas. Raises `Rejected`."""
        found = []
        for text in filter(None, (part.strip() for part in proxies.split(","))):
            try:
                found.append(ip_network(text))
            except ValueError as e:
                raise invalid("trusted_proxies", text, f"is no network: {e}") from e
        wide = [str(net) for net in found if net.prefixlen == 0]
        if wide:
            raise invalid("trusted_proxies", wide[0], "is everybody: name the proxies")
        local = all(net.is_loopback for net in found)
        if secret and len(secret) < MIN_SECRET:
            raise invalid("proxy_secret", f"{len(secret)} characters", f"at least {MIN_SECRET}")
        if found and not local and not secret:
            raise invalid("proxy_secret", "", "is needed with proxies beyond this machine")
        return cls(tuple(found), secret.encode())

    def certificate(self, client: str, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """The fingerprint that a trusted proxy says it saw."""
        said = [value for name, value in headers if name == SAID]
        secrets = [value for name, value in headers if name == SECRET]
        if len(said) != 1 or not self._trusts(client):
            return None
        if self.secret and not (len(secrets) == 1 and compare_digest(secrets[0], self.secret)):
            return None
        plain = _QUOTED.sub(b"", said[0])
        hashes = _HASH.findall(plain)
        # Two elements are two hops: the first was written by whoever stands before our proxy.
        return hashes[0].decode().lower() if len(hashes) == 1 and b"," not in plain else None

    def _trusts(self, client: str) -> bool:
        try:
            address = ip_address(client)
        except ValueError:
            return False
        return any(address in net for net in self.proxies)


class TrustedHop:
    """ASGI, outermost: takes the headers off, and puts the fingerprint into the scope."""

    def __init__(self, app: ASGIApp, hop: Hop) -> None:
        self._app = app
        self._hop = hop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and any(name in (SAID, SECRET) for name, _ in scope["headers"]):
            client = (scope.get("client") or ("",))[0]
            seen = self._hop.certificate(client, scope["headers"])
            kept = [pair for pair in scope["headers"] if pair[0] not in (SAID, SECRET)]
            scope = {**scope, "headers": kept} | ({CERTIFICATE: seen} if seen else {})
        await self._app(scope, receive, send)
