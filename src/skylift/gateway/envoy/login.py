"""The OAuth2 login in Envoy's words: authorization code with PKCE, the session in signed cookies.

Two addresses belong to the login and to no route of the file: the one that the issuer sends people back to,
and the one that ends a session. They are entries of their own (`paths`), behind the same filters.
"""

import hashlib

from skylift.gateway.access import OAuth2Login
from skylift.gateway.envoy import clusters
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import SDS, TYPE, Json
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.model import Gateway, Route

OAUTH = TYPE + "envoy.extensions.filters.http.oauth2.v3.OAuth2"
ON = TYPE + "envoy.config.route.v3.FilterConfig"


def paths(route: Route) -> tuple[str, ...]:
    """Where a route's login is spoken to besides the route itself."""
    found = [step.policy for step in route.steps if isinstance(step.policy, OAuth2Login)]
    return tuple(path for login in found for path in (login.callback_path, login.logout_path))


def login(policy: OAuth2Login, gateway: Gateway, book: Book) -> list[Piece]:
    known = book.callbacks.setdefault(policy.callback_path, policy)
    if known != policy:
        rule = "another login has this path: the issuer's answer would not know whose it is"
        raise Refused([Problem("", "callback_path", rule, policy.callback_path)])
    config: Json = {
        "token_endpoint": {
            "cluster": clusters.of_url(policy.token_url, book),
            "uri": policy.token_url,
            "timeout": "5s",
        },
        "authorization_endpoint": policy.authorization_url,
        "redirect_uri": f"%REQ(x-forwarded-proto)%://%REQ(:authority)%{policy.callback_path}",
        "redirect_path_matcher": {"path": {"exact": policy.callback_path}},
        "signout_path": {"path": {"exact": policy.logout_path}},
        "forward_bearer_token": True,
        "auth_scopes": list(policy.scopes),
        "credentials": {
            "client_id": policy.client_id,
            "token_secret": _secret(policy.client_secret, book),
            "hmac_secret": _secret(policy.cookie_secret, book),
        },
    }
    if policy.pass_bearer:
        brings = {"name": "authorization", "string_match": {"prefix": "Bearer "}}
        config["pass_through_matcher"] = [brings]
    if policy.end_session_url:
        config["end_session_endpoint"] = policy.end_session_url
    kind = "login-" + hashlib.sha256(repr(policy).encode() + policy.client_secret.encode()).hexdigest()[:10]
    return [Piece(kind, {"@type": OAUTH, "config": config}, {"@type": ON, "config": {}})]


def _secret(value: str, book: Book) -> Json:
    """By a name that says nothing and changes with it, in a file of its own."""
    name = "secret-" + hashlib.sha256(b"skylift gateway" + value.encode()).hexdigest()[:20]
    book.secrets[name] = {"name": name, "generic_secret": {"secret": {"inline_string": value}}}
    return {SDS: name}
