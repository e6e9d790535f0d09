"""Traefik's middlewares: each type, its fields, the policies it becomes.

A type's function reads its table and gives policies, in the order they run; most give one, `headers` up to
three, `rateLimit` with average 0 none. `chain` is unfolded where middlewares are looked up (`read`).
"""

import re
from collections.abc import Callable, Mapping
from http.client import responses

from skylift.gateway.access import BasicAuth, ForwardAuth, IpList, Policy, Refusals, Trust
from skylift.gateway.policies import (
    PEER,
    AddPrefix,
    AddressFrom,
    Algorithm,
    Answer,
    CircuitBreaker,
    Compress,
    ErrorPages,
    InFlight,
    Key,
    KeyKind,
    Limit,
    RateLimit,
    Redirect,
    Redis,
    ReplacePath,
    ReplacePathRegex,
    Retry,
    SizeLimit,
    StripPrefix,
    StripPrefixRegex,
)
from skylift.gateway.reading import Fields, duration
from skylift.gateway.template import Source, Var, plain
from skylift.gateway.text import is_network
from skylift.gateway.traefik.breaker import BreakerFault, conditions
from skylift.gateway.traefik.headers import OverTls, headers
from skylift.gateway.traefik.users import users

Policies = tuple[Policy | OverTls, ...]


def status_text(status: int) -> Answer:
    """What Traefik says with most errors: the status in words."""
    return Answer(status, plain(responses.get(status, "")))


# --- limits --------------------------------------------------------------------------------------------


def source(at: Fields, default: KeyKind) -> Key:
    """`sourceCriterion`: at most one of its three ways."""
    table = at.table("sourceCriterion")
    if table is None:
        return Key(default, else_client=False)
    strategy, header = table.table("ipStrategy"), table.header_name("requestHeaderName")
    by_host = table.flag("requestHost", False)
    if sum((strategy is not None, bool(header), by_host)) > 1:
        table.wrong("", None, "ipStrategy, requestHeaderName and requestHost exclude each other")
    address = ip_strategy(strategy) if strategy is not None else PEER
    table.done()
    if header:
        return Key(KeyKind.HEADER, header, else_client=False)
    if by_host:
        return Key(KeyKind.HOST, else_client=False)
    return Key(KeyKind.CLIENT if strategy is not None else default, address=address, else_client=False)


def ip_strategy(at: Fields) -> AddressFrom:
    depth = at.whole("depth", 0, high=100)
    excluded = at.each("excludedIPs", _network)
    if depth and excluded:
        at.wrong("depth", depth, "depth and excludedIPs exclude each other")
    bits = at.whole("ipv6Subnet", 128, low=1, high=128)
    if excluded and bits < 128:
        at.note("whole_addresses", "ipv6Subnet counts with depth, or with the peer's address", "ipv6Subnet")
        bits = 128  # as in Traefik
    at.done()
    return AddressFrom(depth, excluded, bits)


def _network(value: str) -> str | None:
    return None if is_network(value) else "it must be an address or a network such as 10.0.0.0/8"


def rate_limit(at: Fields, name: str) -> Policies:
    average = at.whole("average", 0)
    period = duration(at, "period", 1.0, over=True)
    burst = at.whole("burst", 1, low=1)
    key = source(at, KeyKind.CLIENT)
    redis = _redis(at)
    if not average:
        at.note("no_limit", "average 0: this middleware limits nothing")
        return ()
    rate = average / period
    wait = ("Retry-After", (Var(Source.LIMIT_RESET),)), ("X-Retry-In", (Var(Source.LIMIT_RESET), "s"))
    return (
        RateLimit(
            bucket=name,
            algorithm=Algorithm.TOKEN_BUCKET,
            limits=(Limit(average, period, burst),),
            key=key,
            answer=Answer(429, plain("Too Many Requests"), headers=wait),
            redis=redis,
            max_delay=0.5 if rate < 1 else 1 / (2 * int(rate)),
        ),
    )


def _redis(at: Fields) -> Redis | None:
    table = at.table("redis")
    if table is None:
        return None
    endpoints = table.texts("endpoints", ("127.0.0.1:6379",))
    if len(endpoints) != 1:
        table.wrong("endpoints", list(endpoints), "one address, not a cluster", "not_supported")
    host, _, port = endpoints[0].rpartition(":")
    if not host or not port.isdecimal():
        table.wrong("endpoints[0]", endpoints[0], "it must be host:port")
        port = "6379"
    table.ignored("poolSize", "minIdleConns", "maxActiveConns", "readTimeout", "writeTimeout")
    made = Redis(
        host,
        int(port),
        table.whole("db", 0),
        table.text("username"),
        table.text("password"),
        duration(table, "dialTimeout", 5.0, over=True),
        table.table("tls") is not None,
    )
    table.done()
    return made


def in_flight(at: Fields, name: str) -> Policies:
    amount = at.whole("amount", 0, low=1)
    key = source(at, KeyKind.HOST)
    return (InFlight(amount, key, Answer(429, plain(f"max connections reached: {amount}"))),)


# --- who may pass --------------------------------------------------------------------------------------


def forward_auth(at: Fields, name: str) -> Policies:
    trust = at.raw("trustForwardHeader")
    if trust is not None and not isinstance(trust, bool):
        at.wrong("trustForwardHeader", trust, "it must be true or false")
    address = at.text("address", required=True)
    if address and not address.startswith(("http://", "https://")):
        at.wrong("address", address, "it must be http:// or https://, a host and a path")
    tls = at.must_table("tls")
    for field in ("cert", "key", "certSecret", "caSecret"):
        tls.lacking(field, "certificates for the auth service are not shown here; ca is a file", (None, ""))
    tls.ignored("caOptional")
    verify, ca_file = not tls.flag("insecureSkipVerify", False), tls.text("ca")
    tls.done()
    at.lacking("addAuthCookiesToResponse", "cookies of the auth service reach the client with its refusals")
    at.lacking("authSigninURL", "the auth service redirects itself")
    at.ignored("headerField", "maxResponseBodySize")
    at.lacking("preserveLocationHeader", "Location is given on as the auth service said it", (None, True))
    if "preserveLocationHeader" not in at.value:
        at.note("location_as_said", "a relative Location of the auth service is given on as it said it")
    keep = at.flag("preserveRequestMethod", False)
    if not keep:
        at.note("method_kept", "the auth service is asked with the request's own method, not always GET")
    regex = at.text("authResponseHeadersRegex")
    if regex:
        at.regex("authResponseHeadersRegex", regex)
    return (
        ForwardAuth(
            address,
            {True: Trust.ALL, False: Trust.NONE}.get(trust, Trust.SOME),
            at.texts("authRequestHeaders"),
            at.texts("authResponseHeaders"),
            regex,
            keep_method=keep,
            forward_body=at.flag("forwardBody", False),
            max_body=at.whole("maxBodySize", -1, low=-1),
            verify=verify,
            ca_file=ca_file,
        ),
    )


def basic_auth(at: Fields, name: str) -> Policies:
    at.lacking("secret", "users are in users or usersFile: there is no cluster to ask for a secret")
    realm = at.text("realm", "traefik")
    known = users(at)
    if not known:
        at.wrong("users", None, "without users nobody could pass", "missing_field")
    challenge = ("WWW-Authenticate", (f'Basic realm="{realm}"',))
    refusals = Refusals(Answer(401, plain("401 Unauthorized\n"), headers=(challenge,)))
    hide, header = at.flag("removeHeader", False), at.header_name("headerField")
    return (BasicAuth(known, refusals, realm, hide, header),)


def ip_allow_list(at: Fields, name: str) -> Policies:
    ranges = at.each("sourceRange", _network)
    if not ranges:
        at.wrong("sourceRange", None, "without a range nobody could pass", "missing_field")
    strategy = at.table("ipStrategy")
    address = ip_strategy(strategy) if strategy is not None else PEER
    status = at.whole("rejectStatusCode", 403, low=100, high=599)
    return (IpList(ranges, (), status_text(status), address),)


# --- paths and addresses -------------------------------------------------------------------------------


def strip_prefix(at: Fields, name: str) -> Policies:
    if not at.flag("forceSlash", True):
        at.note("always_a_slash", "the path that is left begins with /, as in Traefik 3", "forceSlash")
    prefixes = at.texts("prefixes")
    if not prefixes:
        at.wrong("prefixes", None, "it must name at least one prefix", "missing_field")
    return (StripPrefix(prefixes),)


def strip_prefix_regex(at: Fields, name: str) -> Policies:
    regexes = at.texts("regex")
    good = [regex for number, regex in enumerate(regexes) if at.regex(f"regex[{number}]", regex)]
    return (StripPrefixRegex(tuple(good)),)


def add_prefix(at: Fields, name: str) -> Policies:
    return (AddPrefix(at.path_text("prefix")),)


def replace_path(at: Fields, name: str) -> Policies:
    return (ReplacePath(at.path_text("path")),)


def replace_path_regex(at: Fields, name: str) -> Policies:
    regex, replacement = at.text("regex", required=True), at.text("replacement")
    at.regex("regex", regex)
    return (ReplacePathRegex(regex, replacement),)


def redirect_scheme(at: Fields, name: str) -> Policies:
    scheme = at.word("scheme", ("http", "https"), "https")
    permanent = at.flag("permanent", False)
    return (Redirect(301 if permanent else 302, scheme=scheme, port=at.text("port"), keeps_method=True),)


def redirect_regex(at: Fields, name: str) -> Policies:
    regex, to = at.text("regex", required=True), at.text("replacement", required=True)
    at.regex("regex", regex)
    status = 301 if at.flag("permanent", False) else 302
    return (Redirect(status, regex=regex, replacement=to, keeps_method=True),)


# --- traffic -------------------------------------------------------------------------------------------


def statuses(at: Fields, field: str) -> tuple[tuple[int, int], ...]:
    """`500`, `500-599`."""
    found = []
    for number, text in enumerate(at.texts(field)):
        low, dash, high = text.partition("-")
        if (
            not low.isdecimal()
            or (dash and not high.isdecimal())
            or not 100 <= int(low) <= int(high or low) < 600
        ):
            at.wrong(f"{field}[{number}]", text, "it must be a status, or two with - between: 500-599")
        else:
            found.append((int(low), int(high or low)))
    return tuple(found)


def retry(at: Fields, name: str) -> Policies:
    attempts = at.whole("attempts", 0, low=1, high=100)
    at.ignored("maxRequestBodyBytes")
    found = Retry(
        attempts - 1,
        statuses(at, "status"),
        on_network_error=not at.flag("disableRetryOnNetworkError", False),
        non_idempotent=at.flag("retryNonIdempotentMethod", False),
        interval=duration(at, "initialInterval", 0.0),
        per_try=duration(at, "timeout", 0.0),
    )
    return (found,) if attempts > 1 else ()


def circuit_breaker(at: Fields, name: str) -> Policies:
    expression = at.text("expression", required=True)
    try:
        when = conditions(expression)
    except BreakerFault as e:
        at.wrong("expression", expression, str(e))
        when = ()
    return (
        CircuitBreaker(
            when,
            status_text(at.whole("responseCode", 503, low=100, high=599)),
            expression,
            duration(at, "checkPeriod", 0.1, over=True),
            duration(at, "fallbackDuration", 10.0, over=True),
            duration(at, "recoveryDuration", 10.0, over=True),
        ),
    )


_ATTEMPTS = re.compile(r"\s*IsNetworkError\(\)\s*&&\s*Attempts\(\)\s*(<=?)\s*([1-9]\d?)\s*")


def buffering(at: Fields, name: str) -> Policies:
    size = at.whole("maxRequestBodyBytes", 0)
    at.lacking("maxResponseBodyBytes", "answers are passed on as they come", (None, 0))
    at.ignored("memRequestBodyBytes", "memResponseBodyBytes")
    found: list[Policy] = [SizeLimit(size, status_text(413))] if size else []
    expression = at.text("retryExpression")
    tries = _ATTEMPTS.fullmatch(expression)
    if tries:
        found.append(Retry(int(tries[2]) - (1 if tries[1] == "<" else 0)))
    elif expression:
        rule = "only IsNetworkError() && Attempts() < n is read; the retry middleware has statuses"
        at.wrong("retryExpression", expression, rule, "not_supported")
    return tuple(found)


def compress(at: Fields, name: str) -> Policies:
    default = at.text("defaultEncoding")
    encodings = at.texts("encodings", ("gzip", "br", "zstd"))
    if default and default not in encodings:
        at.wrong("defaultEncoding", default, f"it must be one of {', '.join(encodings)}")
    excluded, included = at.texts("excludedContentTypes"), at.texts("includedContentTypes")
    if excluded and included:
        at.wrong("excludedContentTypes", list(excluded), "it excludes includedContentTypes")
    return (Compress(at.whole("minResponseBodyBytes", 1024), encodings, excluded, included),)


def error_pages(at: Fields, name: str) -> Policies:
    ranges = statuses(at, "status")
    at.lacking("statusRewrites", "the status stays the backend's")
    at.ignored("errorRequestHeaders")
    service = at.raw("service")
    if isinstance(service, dict):  # the resource's form: an object like a route's service
        table = at.must_table("service")
        service = f"{table.text('name')}:{table.text('port')}"
        table.ignored("namespace", "kind", "scheme", "weight")
        table.done()
    if not isinstance(service, str) or not service:
        at.wrong("service", service, "it must be the name of a service")
        service = ""
    return (ErrorPages(ranges, service, at.text("query", "/")),)


def nothing(why: str) -> Callable[[Fields, str], Policies]:
    """A middleware that changes nothing here."""

    def noted(at: Fields, name: str) -> Policies:
        at.ignored(*at.value)
        at.note("nothing_to_do", why)
        return ()

    return noted


TYPES: Mapping[str, Callable[[Fields, str], Policies]] = {
    "rateLimit": rate_limit,
    "inFlightReq": in_flight,
    "forwardAuth": forward_auth,
    "basicAuth": basic_auth,
    "ipAllowList": ip_allow_list,
    "ipWhiteList": ip_allow_list,
    "headers": headers,
    "stripPrefix": strip_prefix,
    "stripPrefixRegex": strip_prefix_regex,
    "addPrefix": add_prefix,
    "replacePath": replace_path,
    "replacePathRegex": replace_path_regex,
    "redirectScheme": redirect_scheme,
    "redirectRegex": redirect_regex,
    "retry": retry,
    "circuitBreaker": circuit_breaker,
    "buffering": buffering,
    "compress": compress,
    "errors": error_pages,
    "contentType": nothing("a backend's Content-Type is passed on as it is"),
}
ABSENT: Mapping[str, str] = {
    "digestAuth": "use basicAuth, forwardAuth or tokens",
    "passTLSClientCert": "the client's certificate is passed on by the listener, not by a middleware",
    "grpcWeb": "gRPC-Web is not translated",
    "encodedCharacters": "encoded characters in a path are passed on as they are",
    "plugin": "plugins are not run",
    "apiKey": "that is Traefik Hub's; the native form and Kong's key-auth have it",
    "jwt": "that is Traefik Hub's; the native form and Kong's jwt have it",
    "oidc": "that is Traefik Hub's; the native form has the login",
    "oAuthIntrospection": "that is Traefik Hub's; the native form has introspection",
    "oAuthClientCredentials": "that is Traefik Hub's; tokens are not issued here",
    "ldap": "that is Traefik Hub's; use forwardAuth",
    "hmac": "that is Traefik Hub's; use forwardAuth",
    "opa": "that is Traefik Hub's; use forwardAuth",
    "waf": "that is Traefik Hub's; there is none here",
    "distributedRateLimit": "that is Traefik Hub's; rateLimit has redis",
    "httpCache": "that is Traefik Hub's; the native form has a cache",
}
