"""Who somebody is, in Envoy's words: tokens, keys, passwords, somebody else's opinion. Who may pass: `rules`.

A credential that Envoy has verified stands in a header of ours (`x-sl-credential`), which no client can send;
our own filter says whose it is (`native/gateway/consumers.c`). Envoy's refusals become the dialect's through
`Book.reply`, told apart by the details that Envoy keeps of its own answers.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from joserfc.jwk import ECKey, OctKey, RSAKey

from skylift.gateway.access import (
    ApiKey,
    BasicAuth,
    CredentialPlace,
    Fault,
    ForwardAuth,
    From,
    Jwt,
    JwtKey,
    PerConsumer,
    Policy,
    RequireClaim,
    Secret,
    Trust,
)
from skylift.gateway.envoy import clusters, helping, limiting, rules
from skylift.gateway.envoy.formats import CONSUMER, IF_ABSENT, OVERWRITE, header
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.rules import CLAIMS, GROUPS
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.envoy.transforms import mutation
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.helper.asked import CREDENTIAL
from skylift.gateway.model import Consumer, Gateway, Tls
from skylift.gateway.policies import InFlight, KeyKind, RateLimit, RequestTransform
from skylift.gateway.template import Source, uses

# What our filter tells (consumers.c), and clients may not.
TOLD = (CONSUMER, "x-consumer-custom-id", "x-consumer-id", "x-credential-identifier", GROUPS, "x-sl-plan")
JWT = TYPE + "envoy.extensions.filters.http.jwt_authn.v3."
ANONYMOUS = "x-anonymous-consumer"
NOT_LOOKED_AT = 0xFFFFFFFF  # seconds of skew: Envoy cannot be told to leave exp and nbf alone
MOST_PLACES = 8  # consumers.h: MAX_FROM
KEYS = TYPE + "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
BASIC = TYPE + "envoy.extensions.filters.http.basic_auth.v3.BasicAuth"
AUTHZ = TYPE + "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
ANY_NAME: Json = {"safe_regex": {"regex": ".*"}}


# --- tokens
# ------------------------------------------------------------------------------------------------------

# Envoy's details of a refused token: (how they begin, the fault).
JWT_FAULTS = (
    ("Jwt_is_missing", Fault.MISSING),
    ("Jwt_is_expired", Fault.EXPIRED),
    ("Jwt_not_yet_valid", Fault.NOT_YET),
    ("Jwt_issuer_is_not_configured", Fault.UNKNOWN),
    ("Jwt_verification_fails", Fault.BAD_SIGNATURE),
    ("Audiences_in_Jwt_are_not_allowed", Fault.WRONG_AUDIENCE),
    ("Jwt_header_[alg]", Fault.NO_ALGORITHM),
    ("Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt", Fault.WRONG_ALGORITHM),
    ("Jwt_is_not_in_the_form", Fault.MALFORMED),
    ("Jwt_header", Fault.MALFORMED),
    ("Jwt_payload", Fault.MALFORMED),
    ("Jwt_signature", Fault.MALFORMED),
)


def jwt(policy: Jwt, gateway: Gateway, book: Book) -> list[Piece]:
    """A provider for each signer, told apart by the issuer."""
    if policy.key_claim != "iss" and len(policy.keys) > 1:
        rule = "only `iss` can choose between several keys: else one signer could speak for all"
        raise Refused([Problem("", "key_claim_name", rule, policy.key_claim)])
    name = f"jwt-{book.number()}"
    keys = policy.keys or (_nobodys(),)
    providers = [_provider(policy, key, f"{name}-{n}", gateway, book) for n, key in enumerate(keys)]
    wanted: list[Json] = [{"provider_name": provider} for provider in providers]
    if policy.anonymous is not None:
        wanted.append({"allow_missing_or_failed": {}})
    book.jwt_requirements[name] = {"requires_any": {"requirements": wanted}} if len(wanted) > 1 else wanted[0]
    _token_refusals(policy, book)
    own = {"@type": JWT + "PerRouteConfig", "requirement_name": name}
    credentials = {key.name: gateway.consumers.get(key.consumer or "") for key in policy.keys}
    pieces = [Piece("jwt", {}, own)]  # the listener's part is known when all routes are
    if _refuses_long(policy):
        too_long = policy.refusals.answer(Fault.TOO_LONG)
        pieces.append(rules.expires_within(policy.maximum_expiration, too_long, book))
    return pieces + _consumers(credentials, policy.anonymous, gateway, book)


def looks_at_claims(gateway: Gateway) -> bool:
    """Whether anything behind a token's check wants to know what it says."""
    return any(_looks(step.policy) for route in gateway.routes for step in route.steps)


def _looks(policy: Policy) -> bool:
    match policy:
        case RequireClaim():
            return True
        case Jwt():
            return _refuses_long(policy)
        case RateLimit() | InFlight():
            return policy.key.kind is KeyKind.CLAIM
        case RequestTransform():
            templates = [edit.value for edit in policy.edits] + ([policy.path] if policy.path else [])
            return any(uses(template, Source.CLAIM) for template in templates)
        case PerConsumer():
            return any(_looks(plan) for _, plan in policy.plans)
        case _:
            return False


def _nobodys() -> JwtKey:
    """No credential at all: every token is somebody unknown's."""
    return JwtKey("skylift:nobody", ("HS256",), secret=secrets.token_bytes(32))


def _provider(policy: Jwt, key: JwtKey, name: str, gateway: Gateway, book: Book) -> str:
    provider: Json = {
        "issuer": key.name if policy.key_claim == "iss" else "",
        "forward": policy.forward,
        "payload_in_metadata": CLAIMS if looks_at_claims(gateway) else "",  # costs a copy for each request
        "clock_skew_seconds": (policy.leeway or 1) if policy.verify else NOT_LOOKED_AT,
        "require_expiration": "exp" in policy.required,
        "max_lifetime": _longest(policy),
        "claim_to_headers": [
            {"header_name": CREDENTIAL, "claim_name": policy.key_claim},
            *({"header_name": to, "claim_name": claim} for claim, to in policy.claim_headers),
        ],
        "jwt_cache_config": {"jwt_cache_size": 1000},
        **_key_source(key, book),
    }
    if key.audiences:
        provider["audiences"] = list(key.audiences)
    for place in policy.places:
        match place.kind:
            case From.HEADER:
                # Kong takes "Bearer" in either case; Envoy needs the word as it is written.
                at = {"name": place.name, "value_prefix": f"{place.scheme} " if place.scheme else ""}
                provider.setdefault("from_headers", []).append(at)
            case From.QUERY:
                provider.setdefault("from_params", []).append(place.name)
            case From.COOKIE:
                provider.setdefault("from_cookies", []).append(place.name)
            case From.BODY:
                raise Refused([Problem("", "places", "a token in a body cannot be read here", place.name)])
    book.jwt_providers[name] = {field: value for field, value in provider.items() if value not in ("", None)}
    return name


def _refuses_long(policy: Jwt) -> bool:
    """Whether a token that is valid for too long is told so: `rules` looks at it then, because Envoy tells it
    from a forged one by nothing. Where whoever fails is let in as nobody, Envoy may (`_longest`)."""
    return bool(policy.maximum_expiration) and policy.anonymous is None


def _longest(policy: Jwt) -> str:
    """Of what Envoy itself lets pass; empty where that is any."""
    return f"{policy.maximum_expiration}s" if policy.maximum_expiration and not _refuses_long(policy) else ""


def _key_source(key: JwtKey, book: Book) -> Json:
    if key.jwks_url:
        cluster = clusters.of_url(key.jwks_url, book)
        uri = {"uri": key.jwks_url, "cluster": cluster, "timeout": "5s"}
        return {"remote_jwks": {"http_uri": uri, "cache_duration": "300s"}}
    return {"local_jwks": {"inline_string": key.jwks or json.dumps({"keys": [_jwk(key)]})}}


def _jwk(key: JwtKey) -> Json:
    algorithm = {"alg": key.algorithms[0]} if len(key.algorithms) == 1 else {}
    if key.secret:
        return {**OctKey.import_key(key.secret).as_dict(), **algorithm}
    kind = ECKey if "EC" in key.public_key or key.algorithms[0].startswith("ES") else RSAKey
    return {**kind.import_key(key.public_key).as_dict(private=False), **algorithm}


def _token_refusals(policy: Jwt, book: Book) -> None:
    refusals = policy.refusals
    # An unsigned token ends with its second dot; Envoy only says that a part is missing.
    unsigned = 'response.code_details.startsWith("jwt_authn_access_denied{Jwt_is_not_in_the_form")'
    for place in policy.places:
        book.reply(f"{unsigned} && {_ends_with_a_dot(place)}", refusals.answer(Fault.NO_ALGORITHM))
    for details, fault in JWT_FAULTS:
        found = f'response.code_details.startsWith("jwt_authn_access_denied{{{details}")'
        book.reply(found, refusals.answer(fault))
    book.reply("response.code_details.startsWith('jwt_authn_access_denied')", refusals.otherwise)


def _ends_with_a_dot(place: CredentialPlace) -> str:
    """Envoy's expression for: what stands at this place does."""
    name = re.escape(place.name).replace("\\", "\\\\")
    match place.kind:
        case From.QUERY:
            return f"request.query.matches('(^|&){name}=[^&]*\\\\.(&|$)')"
        case From.COOKIE:
            return f"request.headers['cookie'].matches('(^|; ?){name}=[^;]*\\\\.(;|$)')"
        case _:
            return f"request.headers['{place.name.lower()}'].endsWith('.')"


# --- keys and passwords
# -------------------------------------------------------------------------------------------


def api_key(policy: ApiKey, gateway: Gateway, book: Book) -> list[Piece]:
    """Keys at the places where they may stand. Envoy knows a key's holder by the key's digest."""
    if policy.anonymous is not None:
        return _optional_keys(policy, policy.anonymous, gateway, book)
    credentials = [{"key": key.value, "client": _digest(key.value)} for key in policy.keys]
    spare = {"key": secrets.token_hex(16), "client": "nobody"}  # Envoy wants one
    sources = []
    for place in policy.places:
        if place.kind is From.BODY:
            raise Refused([Problem("", "key_in_body", "a key in a body cannot be read here", place.name)])
        sources.append({str(place.kind).split()[0]: place.name})
    own = {
        "@type": KEYS + "PerRoute",
        "credentials": credentials or [spare],
        "key_sources": sources,
        "forwarding": {"header": CREDENTIAL, "hide_credentials": policy.hide},
    }
    shared = {"@type": KEYS, "credentials": [spare], "key_sources": [{"header": "x-sl-none"}]}
    missing = "response.code_details == 'missing_api_key'"
    book.reply(missing, policy.refusals.answer(Fault.MISSING))
    book.reply("response.code_details == 'unkonwn_api_key'", policy.refusals.answer(Fault.UNKNOWN))
    book.reply("response.code_details == 'unknown_api_key'", policy.refusals.answer(Fault.UNKNOWN))
    book.reply("response.code_details == 'client_not_allowed'", policy.refusals.answer(Fault.FORBIDDEN))
    holders = {_digest(key.value): gateway.consumers.get(key.consumer or "") for key in policy.keys}
    return [Piece("keys", shared, own), *_consumers(holders, None, gateway, book)]


def _optional_keys(policy: ApiKey, anonymous: str, gateway: Gateway, book: Book) -> list[Piece]:
    """Envoy's filter refuses whoever it does not know: our own looks keys up by itself."""
    stand, gone, query = [], list[Json](), list[Json]()
    for place in policy.places:
        if place.kind is From.HEADER:
            stand.append(place.name.lower())
            gone.append({"remove": place.name.lower()})
        elif place.kind is From.QUERY:
            stand.append(book.stamp(f"x-sl-query-{place.name.lower()}", f"%QUERY_PARAM({place.name})%"))
            query.append({"remove": place.name})
        else:
            rule = f"an optional key stands in a header or a parameter, not in a {place.kind}"
            raise Refused([Problem("", "key_names", rule, place.name)])
    if len(stand) > MOST_PLACES:
        raise Refused(
            [Problem("", "key_names", f"an optional key stands in at most {MOST_PLACES} places", None)]
        )
    book.ours.update((*TOLD, ANONYMOUS, "x-consumer-groups"))
    rows = [
        _row(key.value, who, _digest(key.value))
        for key in policy.keys
        if (who := gateway.consumers.get(key.consumer or "")) is not None
    ]
    lines = [f"from {name}\n" for name in stand]
    pieces = [limiting.piece("consumers", "".join((*lines, *rows, _else(anonymous, gateway))))]
    return pieces + ([mutation(gone, query=query)] if policy.hide else [])


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]


BASIC_FAULTS = (
    ("no_credential_for_basic_auth", Fault.MISSING),
    ("invalid_scheme_for_basic_auth", Fault.MISSING),
    ("invalid_format_for_basic_auth", Fault.MISSING),
    ("invalid_credential_for_basic_auth", Fault.UNKNOWN),
)


def basic_auth(policy: BasicAuth, gateway: Gateway, book: Book) -> list[Piece]:
    holders = {user.name: gateway.consumers.get(user.consumer or "") for user in policy.users}
    if policy.anonymous is None and all(user.value.startswith("{SHA}") for user in policy.users):
        asked = _shas(policy, book)
    else:
        asked = helping.passwords(policy, book)
    pieces = [*asked, *_consumers(holders, policy.anonymous, gateway, book)]
    after: list[Json] = [{"append": header(policy.header, f"%REQ({CREDENTIAL})%")}] if policy.header else []
    after += [{"remove": "authorization"}] if policy.hide else []
    return pieces + ([mutation(after)] if after else [])


def _shas(policy: BasicAuth, book: Book) -> list[Piece]:
    """Hashes that Envoy reads by itself."""
    own = {"@type": BASIC + "PerRoute", "users": {"inline_string": _users(policy.users)}}
    spare = {"inline_string": _users([Secret("{SHA}" + "A" * 27 + "=", name="nobody")])}
    shared = {"@type": BASIC, "users": spare, "forward_username_header": CREDENTIAL}
    for details, fault in BASIC_FAULTS:
        book.reply(f"response.code_details.startsWith('{details}')", policy.refusals.answer(fault))
    return [Piece("passwords", shared, own)]


def _users(users: Iterable[Secret]) -> str:
    return "".join(f"{user.name}:{user.value}\n" for user in users)


def _consumers(
    credentials: Mapping[str, Consumer | None], anonymous: str | None, gateway: Gateway, book: Book
) -> list[Piece]:
    """Who is who, where there are consumers at all."""
    book.ours.update((CREDENTIAL, *TOLD, ANONYMOUS, "x-consumer-groups"))
    rows = [_row(credential, who, credential) for credential, who in credentials.items() if who is not None]
    rows += [_else(anonymous, gateway)] if anonymous is not None else []
    return [limiting.piece("consumers", f"from {CREDENTIAL}\n" + "".join(rows))] if rows else []


def _row(credential: str, who: Consumer, shown: str) -> str:
    """`shown`: how the backend knows the credential."""
    return f"is {credential}\t" + _fields(who, shown)


def _else(anonymous: str, gateway: Gateway) -> str:
    return "else \t" + _fields(gateway.consumers.get(anonymous) or Consumer(anonymous), "")


def _fields(who: Consumer, shown: str) -> str:
    fields = (who.name, who.custom_id, who.id, shown, ", ".join(who.groups), who.plan)
    return "\t".join(field.replace("\t", " ") for field in fields) + "\n"


# --- somebody else's opinion
# -----------------------------------------------------------------------------------------


def _tls(policy: ForwardAuth) -> Tls:
    return Tls(policy.verify, ca_files=(policy.ca_file,) if policy.ca_file else ())


def forward_auth(policy: ForwardAuth, gateway: Gateway, book: Book) -> list[Piece]:
    """A service is asked, at a fixed address, with the request told in headers. Envoy keeps the method."""
    url = urlsplit(policy.url)
    action = IF_ABSENT if policy.trust is Trust.ALL else OVERWRITE
    told = {
        "x-forwarded-method": "%REQ(:METHOD)%",
        "x-forwarded-proto": "%REQ(X-FORWARDED-PROTO)%",
        "x-forwarded-host": "%REQ(:AUTHORITY)%",
        "x-forwarded-uri": "%REQ(:PATH)%",
    }
    stamp = mutation([{"append": header(name, value, action)} for name, value in told.items()])
    asked: list[Json] = [{"exact": name.lower()} for name in policy.request_headers] or [ANY_NAME]
    kept: list[Json] = [{"exact": name.lower()} for name in policy.response_headers]
    if policy.response_headers_regex:
        kept.append({"safe_regex": {"regex": f"(?i).*?(?:{policy.response_headers_regex}).*"}})
    told_on = {"allowed_upstream_headers": {"patterns": kept}} if kept else {}
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    shared: Json = {
        "@type": AUTHZ,
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "status_on_error": {"code": policy.unreachable.status},
        "clear_route_cache": False,
        "allowed_headers": {"patterns": asked},
        "http_service": {
            "path_override": path,
            "server_uri": {
                "uri": policy.url,
                "cluster": clusters.of_url(policy.url, book, _tls(policy)),
                "timeout": f"{policy.timeout:.3f}s",
            },
            "authorization_response": {**told_on, "allowed_client_headers": {"patterns": [ANY_NAME]}},
        },
    }
    if policy.forward_body:
        most = policy.max_body if policy.max_body > 0 else 1 << 20
        shared["with_request_body"] = {"max_request_bytes": most, "allow_partial_message": False}
    kind = f"asks-{_digest(json.dumps(shared, sort_keys=True))}"
    gone: list[Json] = [{"remove": name.lower()} for name in policy.response_headers]
    if policy.response_headers_regex:  # what a client says of itself goes, whatever the service says
        gone.append({"remove_on_match": {"key_matcher": kept[-1]}})
    own = {"@type": AUTHZ + "PerRoute", "check_settings": {}}
    cleared = [mutation(gone)] if gone else []
    return [*cleared, stamp, Piece(kind, shared, own)]
