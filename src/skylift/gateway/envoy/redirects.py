"""Redirects in Envoy's words: to another scheme by the route itself, by a regular expression in three steps.

Envoy's own redirect rewrites a path, not an address. So the address is put into a header of ours, RE2 makes
the new one of it (in the request's metadata), and a script compares the two: where they are the same, because
nothing matched or because the address is right already, the request goes on.
"""

from skylift.gateway.envoy import scripts
from skylift.gateway.envoy.formats import header
from skylift.gateway.envoy.paths import from_go
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import Json
from skylift.gateway.envoy.transforms import captured, mutation
from skylift.gateway.model import Listener
from skylift.gateway.policies import Redirect

HERE = "x-sl-url"
METADATA, TO = "skylift.redirect", "to"
CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def to_scheme(policy: Redirect, method: str) -> Json:
    """What a route says to requests of this method, at a listener of another scheme."""
    port = {"port_redirect": int(policy.port)} if policy.port else {}
    code = CODES.get(policy.status_for(method), "FOUND")
    return {"redirect": {"scheme_redirect": policy.scheme, **port, "response_code": code}}


def by_regex(policy: Redirect, listener: Listener, book: Book) -> list[Piece]:
    """The filters that send on whoever's address the expression changes."""
    book.ours.add(HERE)
    scheme = "https" if listener.tls else "http"
    here = mutation([{"append": header(HERE, f"{scheme}://%REQ(:AUTHORITY)%%REQ(:PATH)%")}])
    made = captured(HERE, METADATA, TO, policy.regex, from_go(policy.replacement, policy.regex))
    context = {"get": policy.status_for("GET"), "others": policy.status_for("POST")}
    return [here, made, scripts.redirect(context), mutation([{"remove": HERE}])]
