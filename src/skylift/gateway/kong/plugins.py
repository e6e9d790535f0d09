"""Kong's plugins: each name, its fields, the policy it becomes, its place in the order.

A plugin's function reads `config` and gives a policy. What depends on the route (a limit's bucket) or on
consumers (credentials) is filled in where the plugin is attached (`read`).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urlsplit

from skylift.gateway.access import (
    Acl,
    ApiKey,
    BasicAuth,
    BotDetection,
    CredentialPlace,
    From,
    IpList,
    Jwt,
    Policy,
)
from skylift.gateway.kong import answers
from skylift.gateway.kong.transform import request_transformer, response_transformer
from skylift.gateway.policies import (
    Algorithm,
    Answer,
    Cache,
    CorrelationId,
    Cors,
    FileLog,
    Generator,
    Key,
    KeyKind,
    Limit,
    LimitHeaders,
    RateLimit,
    Redirect,
    Redis,
    Respond,
    SizeLimit,
)
from skylift.gateway.reading import Fields
from skylift.gateway.template import Source, Var, plain
from skylift.gateway.text import is_network, regex_fault

PERIODS = (
    ("second", 1),
    ("minute", 60),
    ("hour", 3600),
    ("day", 86_400),
    ("month", 30 * 86_400),
    ("year", 365 * 86_400),
)
_LIMIT_BY = {
    "consumer": KeyKind.CONSUMER,
    "credential": KeyKind.CREDENTIAL,
    "ip": KeyKind.CLIENT,
    "service": KeyKind.EVERYBODY,
    "header": KeyKind.HEADER,
    "path": KeyKind.PATH,
}


def rate_limiting(at: Fields) -> Policy:
    limits = []
    for name, seconds in PERIODS:
        count = at.number(name, 0, over=True)
        if count:
            limits.append(Limit(math.ceil(count), seconds, name=name.capitalize()))
    if not limits:
        at.wrong("", None, f"at least one of {', '.join(name for name, _ in PERIODS)} must be given")
    for shorter, longer in pairwise(limits):
        if longer.count < shorter.count:
            rule = f"it must not be lower than {shorter.name.lower()} ({shorter.count})"
            at.wrong(longer.name.lower(), longer.count, rule)
    by = at.choice("limit_by", _LIMIT_BY, KeyKind.CONSUMER)
    name = at.header_name("header_name") if by is KeyKind.HEADER else ""
    if by is KeyKind.HEADER and not name:
        at.wrong("header_name", None, "limit_by header needs the header's name", "missing_field")
    if by is KeyKind.PATH:
        name = at.path_text("path")
    at.ignored("header_name", "path")
    status = at.whole("error_code", 429, low=400, high=599)
    message = at.text("error_message", "API rate limit exceeded")
    return RateLimit(
        bucket="",
        algorithm=Algorithm.FIXED_WINDOW,
        limits=tuple(limits),
        key=Key(by, name),
        answer=answers.error(status, message, ("Retry-After", (Var(Source.LIMIT_RESET),))),
        headers=LimitHeaders.NONE if at.flag("hide_client_headers", False) else LimitHeaders.KONG,
        redis=_counters(at),
        fault_tolerant=at.flag("fault_tolerant", True),
        counts_refused=True,
    )


def _counters(at: Fields) -> Redis | None:
    """`policy`, and where it is redis, its `redis` table, or the flat fields that were there before it."""
    policy = at.word("policy", ("local", "redis", "cluster"), "local")
    sync = at.number("sync_rate", -1, low=-1)
    if sync not in (-1, 0):
        at.note("counted_at_once", "sync_rate: counters are shared at every request here, never later")
    table, flat = at.table("redis"), at.has("redis_host")
    if policy == "cluster":
        at.wrong("policy", policy, "without a database there is local and redis", "not_supported")
    if policy == "redis" and table is None and not flat:
        at.wrong("redis", None, "policy redis needs host and port of the store", "missing_field")
    found = _store(at, "redis_")
    if table is not None:
        found = _store(table, "")
        table.done()
    return found if policy == "redis" else None


def _store(at: Fields, before: str) -> Redis:
    at.ignored(f"{before}ssl_verify", f"{before}server_name")
    return Redis(
        host=at.text(f"{before}host", "127.0.0.1"),
        port=at.whole(f"{before}port", 6379, low=1, high=65535),
        database=at.whole(f"{before}database", 0, high=1000),
        username=at.text(f"{before}username"),
        password=at.text(f"{before}password"),
        timeout=at.number(f"{before}timeout", 2000, over=True) / 1000,
        tls=at.flag(f"{before}ssl", False),
    )


def jwt(at: Fields) -> Policy:
    key_claim = at.text("key_claim_name", "iss")
    claims = at.each(
        "claims_to_verify", lambda name: None if name in ("exp", "nbf") else "it must be one of exp, nbf"
    )
    longest = at.whole("maximum_expiration", 0)
    if longest and "exp" not in claims:
        at.wrong("maximum_expiration", longest, "it needs exp in claims_to_verify")
    if at.flag("secret_is_base64", False):
        at.note("base64_secrets", "secrets of jwt_secrets are read as base64")
    headers = at.texts("header_names", ("authorization",))
    places = (
        *(CredentialPlace(From.QUERY, name) for name in at.texts("uri_param_names", ("jwt",))),
        *(CredentialPlace(From.COOKIE, name) for name in at.texts("cookie_names")),
        *(CredentialPlace(From.HEADER, name, "Bearer") for name in headers),
    )
    return Jwt(
        places=places,
        keys=(),
        refusals=answers.jwt_refusals(key_claim, at.text("realm")),
        key_claim=key_claim,
        verify=frozenset(claims),
        required=frozenset(claims),
        maximum_expiration=longest,
        anonymous=at.text("anonymous") or None,
        on_preflight=at.flag("run_on_preflight", True),
    )


def key_auth(at: Fields) -> Policy:
    names = at.texts("key_names", ("apikey",))
    kinds = [
        kind
        for field, kind, default in (
            ("key_in_header", From.HEADER, True),
            ("key_in_query", From.QUERY, True),
            ("key_in_body", From.BODY, False),
        )
        if at.flag(field, default)
    ]
    return ApiKey(
        places=tuple(CredentialPlace(kind, name) for name in names for kind in kinds),
        keys=(),
        refusals=answers.key_refusals(at.text("realm")),
        hide=at.flag("hide_credentials", False),
        anonymous=at.text("anonymous") or None,
        on_preflight=at.flag("run_on_preflight", True),
    )


def basic_auth(at: Fields) -> Policy:
    realm = at.text("realm", "service")
    return BasicAuth(
        users=(),
        refusals=answers.basic_refusals(realm),
        realm=realm,
        hide=at.flag("hide_credentials", False),
        anonymous=at.text("anonymous") or None,
    )


def _lists(at: Fields, rule: Callable[[str], str | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`allow` and `deny`, under the names they had before Kong 3 too."""
    return (
        at.each("allow", rule) or at.each("whitelist", rule),
        at.each("deny", rule) or at.each("blacklist", rule),
    )


def acl(at: Fields) -> Policy:
    allow, deny = _lists(at, lambda _: None)
    if bool(allow) == bool(deny):
        at.wrong("allow", None, "exactly one of allow and deny must be given")
    at.lacking("always_use_authenticated_groups", "groups come from the consumer only")
    return Acl(allow, deny, answers.ACL_REFUSALS, tell_backend=not at.flag("hide_groups_header", False))


def _network(value: str) -> str | None:
    return None if is_network(value) else "it must be an address or a network such as 10.0.0.0/8"


def ip_restriction(at: Fields) -> Policy:
    allow, deny = _lists(at, _network)
    if not allow and not deny:
        at.wrong("allow", None, "at least one of allow and deny must be given")
    status = at.whole("status", 403, low=200, high=599)
    message = at.text("message")
    answer = answers.error(status, message) if message else _address_refused(status)
    return IpList(allow, deny, answer)


def _address_refused(status: int) -> Answer:
    made = answers.error(status, "IP address not allowed: \0")
    before, _, after = str(made.body[0]).partition("\\u0000")
    return Answer(status, (before, Var(Source.CLIENT), after, *made.body[1:]), made.content_type)


def bot_detection(at: Fields) -> Policy:
    allow, deny = _lists(at, regex_fault)
    return BotDetection(allow, deny, answers.error(403))


_UNITS = {"megabytes": 1 << 20, "kilobytes": 1 << 10, "bytes": 1}


def request_size_limiting(at: Fields) -> Policy:
    unit = at.word("size_unit", _UNITS, "megabytes")
    size = at.whole("allowed_payload_size", 128, low=1)
    length = answers.error(411, "A valid Content-Length header is required")
    return SizeLimit(
        size * _UNITS[unit],
        answers.error(413, "Request size limit exceeded"),
        length if at.flag("require_content_length", False) else None,
    )


def correlation_id(at: Fields) -> Policy:
    return CorrelationId(
        at.header_name("header_name", "Kong-Request-ID"),
        at.choice("generator", Generator, Generator.UUID_COUNTER),
        at.flag("echo_downstream", False),
    )


def proxy_cache(at: Fields) -> Policy:
    at.word("strategy", ("memory",), "memory")
    at.ignored("memory", "storage_ttl", "response_headers", "ignore_uri_case")
    return Cache(
        ttl=at.whole("cache_ttl", 300, low=1),
        methods=at.texts("request_method", ("GET", "HEAD")),
        statuses=at.wholes("response_code", (200, 301, 404), low=100, high=900),
        content_types=at.texts("content_type", ("text/plain", "application/json")),
        vary_headers=at.texts("vary_headers"),
        vary_query=at.texts("vary_query_params") if at.has("vary_query_params") else None,
        obey_cache_control=at.flag("cache_control", False),
    )


def request_termination(at: Fields) -> Policy:
    status = at.whole("status_code", 503, low=100, high=599)
    at.lacking("echo", "a termination says what is written, not what it was asked")
    at.lacking("trigger", "a termination answers every request of its route")
    message, body = at.text("message"), at.block("body")
    if message and body:
        at.wrong("body", None, "message and body exclude each other")
    kind = at.text("content_type", answers.JSON)
    if body:
        return Respond(Answer(status, plain(body), kind))
    return Respond(answers.bare(status, message or answers.TEXTS.get(status, "")))


_PLAIN_ORIGIN = re.compile(r"[A-Za-z0-9.:/-]+")


def _origins(at: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Plain origins, and regular expressions over the whole of one: what is no plain text is one in Kong. One
    without a scheme is compared with the host alone."""
    plain_ones, regexes = [], []
    for number, origin in enumerate(at.texts("origins", ("*",))):
        if origin == "*" or (_PLAIN_ORIGIN.fullmatch(origin) and ":" in origin):
            plain_ones.append(origin)
            continue
        regex = (
            re.escape(origin)
            if _PLAIN_ORIGIN.fullmatch(origin)
            else origin.removeprefix("^").removesuffix("$")
        )
        if at.regex(f"origins[{number}]", regex):
            by_host = ":" not in origin
            regexes.append(f"[a-z]+://(?:{regex})(?::[0-9]+)?" if by_host else f"(?:{regex})")
    return tuple(plain_ones), tuple(regexes)


def cors(at: Fields) -> Policy:
    origins, regexes = _origins(at)
    age = at.whole("max_age", -1, low=0)
    at.lacking("private_network", "private network access is not answered")
    at.ignored("allow_origin_absent")
    default = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT")
    return Cors(
        origins=origins,
        origin_regexes=regexes,
        methods=at.texts("methods", default),
        headers=at.texts("headers"),
        exposed=at.texts("exposed_headers"),
        credentials=at.flag("credentials", False),
        max_age=None if age < 0 else age,
        pass_preflight=at.flag("preflight_continue", False),
    )


def redirect(at: Fields) -> Policy:
    where = at.text("location", required=True)
    status = at.whole("status_code", 301, low=300, high=308)
    if not at.flag("keep_incoming_path", False):
        return Respond(Answer(status, headers=(("Location", plain(where)),)))
    parts = urlsplit(where)  # its own path gives way to the request's
    there = f"{parts.scheme}://{parts.netloc}".replace("$", "$$")
    return Redirect(status, regex=r"^[a-z]+://[^/]+(/.*)?$", replacement=there + "$1")


def file_log(at: Fields) -> Policy:
    at.lacking("custom_fields_by_lua", "Lua of a file is not run", (None, {}))
    if at.flag("reopen", False):
        at.note("log_stays_open", "reopen: the file stays open until SIGHUP, which opens it anew", "reopen")
    path = at.text("path", required=True)
    if path and not path.startswith("/"):
        at.wrong("path", path, "it must begin with /: a gateway runs in no directory of its own")
    return FileLog(path)


@dataclass(frozen=True, slots=True)
class Plugin:
    """`priority`: Kong's; the highest runs first. `per_consumer`: whether one consumer may have its own."""

    read: Callable[[Fields], Policy]
    priority: int
    per_consumer: bool = True


PLUGINS: Mapping[str, Plugin] = {
    "correlation-id": Plugin(correlation_id, 100001),
    "bot-detection": Plugin(bot_detection, 2500, per_consumer=False),
    "cors": Plugin(cors, 2000, per_consumer=False),
    "jwt": Plugin(jwt, 1450, per_consumer=False),
    "key-auth": Plugin(key_auth, 1250, per_consumer=False),
    "basic-auth": Plugin(basic_auth, 1100, per_consumer=False),
    "ip-restriction": Plugin(ip_restriction, 990),
    "request-size-limiting": Plugin(request_size_limiting, 951),
    "acl": Plugin(acl, 950, per_consumer=False),
    "rate-limiting": Plugin(rate_limiting, 910),
    "request-transformer": Plugin(request_transformer, 801),
    "response-transformer": Plugin(response_transformer, 800),
    "redirect": Plugin(redirect, 779),
    "proxy-cache": Plugin(proxy_cache, 100),
    "file-log": Plugin(file_log, 9),
    "request-termination": Plugin(request_termination, 2),
}
