"""What Kong says when it answers itself: JSON with a message, and mostly a request id."""

import json

from skylift.gateway.access import Fault, Refusals
from skylift.gateway.policies import Answer
from skylift.gateway.template import Source, Template, Var

JSON = "application/json; charset=utf-8"
TEXTS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    413: "Payload too large",
    429: "Too many requests",
    500: "An unexpected error occurred",
    502: "An invalid response was received from the upstream server",
    503: "The upstream server is currently unavailable",
    504: "The upstream server is timing out",
}


def error(status: int, message: str = "", *headers: tuple[str, Template]) -> Answer:
    """An error of Kong's own, with the request's id."""
    text = json.dumps(message or TEXTS[status])
    body: Template = (f'{{\n  "message":{text},\n  "request_id":"', Var(Source.REQUEST_ID), '"\n}')
    return Answer(status, body, JSON, headers)


def bare(status: int, message: object, *headers: tuple[str, Template]) -> Answer:
    """What a plugin that answers by itself says: no request id. A table is the whole body."""
    body = message if isinstance(message, dict) else {"message": message}
    return Answer(status, (json.dumps(body, separators=(",", ":")),), JSON, headers)


NOT_FOUND = error(404, "no Route matched with those values")
USE_HTTPS = error(
    426, "Please use HTTPS protocol", ("Connection", ("Upgrade",)), ("Upgrade", ("TLS/1.2, HTTP/1.1",))
)
OWN = tuple((status, error(status)) for status in (413, 500, 502, 503, 504))


def to_https(status: int) -> Answer:
    """The redirect of a route that speaks https only."""
    where: Template = ("https://", Var(Source.HOST), Var(Source.PATH))
    return Answer(status, headers=(("Location", where),))


def bearer(realm: str, *, with_token: bool = False) -> tuple[str, Template]:
    """The challenge of the jwt plugin."""
    parts = [f'realm="{realm}"'] if realm else []
    parts += ['error="invalid_token"'] if with_token else []
    return "WWW-Authenticate", (f"Bearer {', '.join(parts)}".strip(),)


def jwt_refusals(key_claim: str, realm: str) -> Refusals:
    """The jwt plugin's answers, fault by fault."""
    bad = bearer(realm, with_token=True)
    number = "must be a number"
    said: dict[Fault, object] = {
        Fault.SEVERAL: "Multiple tokens provided",
        Fault.MALFORMED: "Bad token; invalid JSON",
        Fault.NO_ALGORITHM: "Bad token; invalid alg",
        Fault.NO_KEY_NAME: f"No mandatory '{key_claim}' in claims",
        Fault.UNKNOWN: f"No credentials found for given '{key_claim}'",
        Fault.WRONG_ALGORITHM: "Invalid algorithm",
        Fault.BAD_SIGNATURE: "Invalid signature",
        Fault.EXPIRED: {"exp": "token expired"},
        Fault.NOT_YET: {"nbf": "token not valid yet"},
        Fault.TOO_LONG: {"exp": "exceeds maximum allowed expiration"},
    }
    told = [(fault, bare(401, text, bad)) for fault, text in said.items()]
    about: Template = ('{"', Var(Source.ABOUT), f'":"{number}"}}')
    told += [(fault, Answer(401, about, JSON, (bad,))) for fault in (Fault.NOT_A_NUMBER, Fault.CLAIM_MISSING)]
    return Refusals(bare(401, "Unauthorized", bearer(realm)), tuple(told))


def key_refusals(realm: str) -> Refusals:
    """The key-auth plugin's answers."""
    challenge = ("WWW-Authenticate", (f'Key realm="{realm}"' if realm else "Key",))
    return Refusals(
        error(401, "Unauthorized", challenge),
        (
            (Fault.SEVERAL, error(401, "Duplicate API key found", challenge)),
            (Fault.MISSING, error(401, "No API key found in request", challenge)),
        ),
    )


def basic_refusals(realm: str) -> Refusals:
    """The basic-auth plugin's answers."""
    challenge = ("WWW-Authenticate", (f'Basic realm="{realm}"',))
    return Refusals(error(401, "Unauthorized", challenge))


ACL_REFUSALS = Refusals(
    error(403, "You cannot consume this service"), ((Fault.MISSING, error(401, "Unauthorized")),)
)
