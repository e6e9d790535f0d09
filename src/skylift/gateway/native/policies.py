"""The native form's policies: each is a table with one key, its type.

policies:
  - limit: {count: 100, per: 1m, by: consumer, algorithm: sliding window}
  - jwt: {issuer: https://id.example, jwks_url: https://id.example/jwks, require: [exp]}
"""

from collections.abc import Callable, Mapping

from skylift.gateway.access import (
    Acl,
    ApiKey,
    BotDetection,
    CredentialPlace,
    Fault,
    ForwardAuth,
    From,
    Introspection,
    IpList,
    Jwt,
    JwtKey,
    OAuth2Login,
    Policy,
    Refusals,
    RequireClaim,
    Trust,
)
from skylift.gateway.native import answers
from skylift.gateway.native.change import CHANGES
from skylift.gateway.policies import (
    Algorithm,
    Answer,
    Cache,
    CircuitBreaker,
    Compress,
    CorrelationId,
    Cors,
    FileLog,
    InFlight,
    Key,
    KeyKind,
    Limit,
    LimitHeaders,
    RateLimit,
    Redirect,
    Redis,
    Respond,
    Retry,
    SizeLimit,
    StaleOnError,
    Timeout,
)
from skylift.gateway.reading import Fields, duration
from skylift.gateway.template import plain
from skylift.gateway.text import is_network, regex_fault
from skylift.gateway.tokens import ALGORITHMS
from skylift.gateway.traefik.breaker import BreakerFault, conditions

_BY = {
    "client": KeyKind.CLIENT,
    "consumer": KeyKind.CONSUMER,
    "header": KeyKind.HEADER,
    "cookie": KeyKind.COOKIE,
    "claim": KeyKind.CLAIM,
    "host": KeyKind.HOST,
    "everybody": KeyKind.EVERYBODY,
}
_NAMED = {KeyKind.HEADER, KeyKind.COOKIE, KeyKind.CLAIM}


def _key(at: Fields, default: KeyKind) -> Key:
    by = at.choice("by", _BY, default)
    name = at.text("name")
    if (by in _NAMED) != bool(name):
        at.wrong("name", name or None, "by header, cookie and claim need a name, the others have none")
    return Key(by, name)


MAX_QUEUED = 60.0  # seconds: whoever waits for longer has gone

# --- limits --------------------------------------------------------------------------------------------


def limit(at: Fields, name: str) -> Policy:
    """`count` `per` a time; `also` further such pairs; `redis` shares the count among gateways; a leaky
    bucket's `queue`: so many wait for their turn instead of being refused."""
    algorithm = at.choice("algorithm", Algorithm, Algorithm.TOKEN_BUCKET)
    limits = [_limit(at)]
    queue = at.whole("queue", 0, high=100_000)
    for more in at.tables("also"):
        limits.append(_limit(more))
        more.done()
    if queue and (algorithm is not Algorithm.LEAKY_BUCKET or len(limits) > 1):
        at.wrong("queue", queue, "it belongs to a leaky bucket with one limit")
    longest = queue * limits[0].seconds / limits[0].count
    if longest > MAX_QUEUED:
        at.wrong("queue", queue, f"the last would wait {longest:g} s, {MAX_QUEUED:g} s are the most")
    redis = at.table("redis")
    return RateLimit(
        bucket=name,
        algorithm=algorithm,
        limits=tuple(limits),
        key=_key(at, KeyKind.CLIENT),
        answer=answers.TOO_MANY,
        headers=LimitHeaders.IETF if at.flag("headers", True) else LimitHeaders.NONE,
        redis=_redis(redis) if redis else None,
        fault_tolerant=at.flag("fault_tolerant", True),
        max_delay=longest,
    )


def _limit(at: Fields) -> Limit:
    count = at.whole("count", 0, low=1)
    if not at.has("count"):
        at.wrong("count", None, "it must be given", "missing_field")
    seconds = duration(at, "per", 1.0, over=True)
    return Limit(max(1, count), seconds, at.whole("burst", 0), name=at.text("per", "1s"))


def _redis(at: Fields) -> Redis:
    made = Redis(
        at.text("host", "127.0.0.1"),
        at.whole("port", 6379, low=1, high=65535),
        at.whole("database", 0),
        at.text("username"),
        at.text("password"),
        duration(at, "timeout", 2.0, over=True),
        at.flag("tls", False),
    )
    at.done()
    return made


def in_flight(at: Fields, name: str) -> Policy:
    """At most `amount` requests of one key at a time."""
    return InFlight(at.whole("amount", 1, low=1), _key(at, KeyKind.CLIENT), answers.problem(429))


# --- who may pass --------------------------------------------------------------------------------------


def _places(at: Fields, header: str, scheme: str) -> tuple[CredentialPlace, ...]:
    """`header`, `query`, `cookie`: where a credential stands; the header if nothing is said."""
    found = [
        CredentialPlace(kind, at.text(field), scheme if kind is From.HEADER else "")
        for field, kind in (("header", From.HEADER), ("query", From.QUERY), ("cookie", From.COOKIE))
        if at.has(field)
    ]
    return tuple(found) or (CredentialPlace(From.HEADER, header, scheme),)


def jwt(at: Fields, name: str) -> Policy:
    """One issuer's tokens. Exactly one of `secret`, `public_key`, `jwks`, `jwks_url`."""
    given = [field for field in ("secret", "public_key", "jwks", "jwks_url") if at.has(field)]
    if len(given) != 1:
        at.wrong("", None, "exactly one of secret, public_key, jwks, jwks_url must be given")
    default = ("HS256",) if given == ["secret"] else ("RS256", "ES256")
    algorithms = at.each("algorithms", _algorithm, default)
    symmetric = {each.startswith("HS") for each in algorithms}
    if len(symmetric) > 1 or (True in symmetric) != (given == ["secret"]):
        rule = "HMAC algorithms go with a secret, the others with public keys, never both"
        at.wrong("algorithms", list(algorithms), rule)
    key = JwtKey(
        at.text("issuer", required=True),
        algorithms,
        at.text("secret").encode(),
        at.block("public_key"),
        at.block("jwks"),
        at.text("jwks_url"),
        audiences=at.texts("audiences", single=True),
    )
    return Jwt(
        places=_places(at, "Authorization", "Bearer"),
        keys=(key,),
        refusals=answers.refusals("Bearer"),
        required=frozenset(at.texts("require", ("exp",))),
        leeway=int(duration(at, "leeway", 0.0)),
        claim_headers=at.mapping("claim_headers"),
        forward=at.flag("forward", True),
        on_preflight=at.flag("preflight", False),
    )


def _algorithm(name: str) -> str | None:
    if name in ALGORITHMS:
        return None
    return f"it must be one of {', '.join(ALGORITHMS)}" + (": unsigned is no signature" * (name == "none"))


def api_key(at: Fields, name: str) -> Policy:
    """Keys are the consumers'; they are filled in where routes are made."""
    return ApiKey(
        _places(at, "X-API-Key", ""),
        (),
        answers.refusals("Key"),
        at.flag("hide", True),
        on_preflight=at.flag("preflight", False),
    )


def login(at: Fields, name: str) -> Policy:
    """The OAuth2 login: authorization code with PKCE, the session in signed cookies."""
    secret = at.text("cookie_secret", required=True)
    if 0 < len(secret) < 32:
        at.wrong("cookie_secret", None, "it signs sessions: at least 32 characters")
    return OAuth2Login(
        at.text("authorization_url", required=True),
        at.text("token_url", required=True),
        at.text("client_id", required=True),
        at.text("client_secret", required=True),
        at.path_text("callback_path", "/oauth2/callback"),
        at.path_text("logout_path", "/oauth2/logout"),
        at.texts("scopes", ("openid",)),
        secret,
        at.flag("pass_bearer", False),
        at.text("end_session_url"),
    )


def introspection(at: Fields, name: str) -> Policy:
    """An opaque bearer token is asked about at its issuer (RFC 7662)."""
    told = answers.refusals("Bearer")
    return Introspection(
        at.text("url", required=True),
        at.text("client_id", required=True),
        Refusals(told.otherwise, ((Fault.FORBIDDEN, answers.problem(403)),)),
        at.text("client_secret", required=True),
        at.texts("scopes"),
        duration(at, "cache", 30.0),
        duration(at, "timeout", 2.0, over=True),
        at.mapping("claim_headers"),
    )


def require(at: Fields, name: str) -> Policy:
    """A role or a scope of the verified token."""
    any_of, all_of = at.texts("any"), at.texts("all")
    if bool(any_of) == bool(all_of):
        at.wrong("", None, "exactly one of any and all must be given")
    return RequireClaim(at.text("claim", "scope"), any_of or all_of, answers.FORBIDDEN, bool(all_of))


def groups(at: Fields, name: str) -> Policy:
    """By the consumer's groups."""
    allow, deny = at.texts("allow"), at.texts("deny")
    if not allow and not deny:
        at.wrong("allow", None, "at least one of allow and deny must be given")
    told = answers.refusals("Key").otherwise
    refused = Refusals(answers.problem(403), ((Fault.MISSING, told),))
    return Acl(allow, deny, refused, at.flag("tell_backend", True))


def addresses(at: Fields, name: str) -> Policy:
    """By the client's address: deny first, then allow."""

    def network(text: str) -> str | None:
        return None if is_network(text) else "it must be an address or a network such as 10.0.0.0/8"

    return IpList(at.each("allow", network), at.each("deny", network), answers.problem(403))


def bots(at: Fields, name: str) -> Policy:
    """By User-Agent: `deny` and who is known as a bot may not pass, but for those of `allow`."""
    return BotDetection(at.each("allow", regex_fault), at.each("deny", regex_fault), answers.problem(403))


def forward_auth(at: Fields, name: str) -> Policy:
    """A service is asked; 2xx lets pass, anything else is the answer."""
    return ForwardAuth(
        at.text("url", required=True),
        Trust.NONE,
        at.texts("request_headers"),
        at.texts("response_headers"),
        keep_method=True,
        timeout=duration(at, "timeout", 5.0, over=True),
        unreachable=answers.problem(503),
    )


# --- traffic and answers -------------------------------------------------------------------------------


def retry(at: Fields, name: str) -> Policy:
    """`tries` more after the first, of what may be sent twice."""
    statuses = at.wholes("statuses", (), low=100, high=599)
    return Retry(
        at.whole("tries", 2, low=1, high=20),
        tuple((status, status) for status in statuses),
        at.flag("network_errors", True),
        at.flag("non_idempotent", False),
        duration(at, "interval", 0.0),
        duration(at, "per_try", 0.0),
    )


def timeout(at: Fields, name: str) -> Policy:
    """Of a whole exchange."""
    return Timeout(duration(at, "after", 15.0, over=True))


def breaker(at: Fields, name: str) -> Policy:
    """`when` is Traefik's expression."""
    text = at.text("when", "NetworkErrorRatio() > 0.5")
    try:
        when = conditions(text)
    except BreakerFault as e:
        at.wrong("when", text, str(e))
        when = ()
    open_for, recovery = duration(at, "open_for", 10.0, over=True), duration(at, "recovery", 10.0, over=True)
    return CircuitBreaker(when, answers.problem(503), text, open_for=open_for, recovery=recovery)


def stale(at: Fields, name: str) -> Policy:
    """The last good answer while the backend fails."""
    return StaleOnError(
        at.wholes("statuses", (500, 502, 503, 504), low=500, high=599),
        duration(at, "max_age", 3600.0, over=True),
        at.whole("entries", 500, low=1, high=100_000),
        at.whole("max_bytes", 256 * 1024, low=1),
    )


def cache(at: Fields, name: str) -> Policy:
    """Answers are kept `for` so long."""
    return Cache(
        ttl=int(duration(at, "for", 300.0, over=True)),
        vary_headers=at.texts("vary"),
        obey_cache_control=at.flag("obey_cache_control", True),
    )


def cors(at: Fields, name: str) -> Policy:
    """Which pages of other origins may ask."""
    return Cors(
        at.texts("origins", ("*",)),
        (),
        at.texts("methods", ("GET", "HEAD", "POST")),
        at.texts("headers"),
        at.texts("exposed"),
        at.flag("credentials", False),
        int(duration(at, "max_age", 600.0)),
        preflight_status=204,
    )


def redirect(at: Fields, name: str) -> Policy:
    """To another scheme, to one address, or by `regex` over the whole address and `to` with its groups."""
    status = at.whole("status", 308, low=301, high=308)
    if at.has("scheme"):
        return Redirect(status, scheme=at.word("scheme", ("http", "https"), "https"), port=at.text("port"))
    to = at.text("to", required=True)
    regex = at.text("regex")
    if regex and at.regex("regex", regex):
        return Redirect(status, regex=regex, replacement=to)
    return Respond(Answer(status, headers=(("Location", plain(to)),)))


def respond(at: Fields, name: str) -> Policy:
    """A fixed answer: a health endpoint, a page."""
    status = at.whole("status", 200, low=200, high=599)
    kind = at.text("content_type", "text/plain; charset=utf-8")
    headers = tuple((key, plain(value)) for key, value in at.mapping("headers"))
    return Respond(Answer(status, plain(at.block("body")), kind, headers))


def compress(at: Fields, name: str) -> Policy:
    """Answers, by gzip, brotli or zstd."""
    return Compress(at.whole("minimum", 1024), at.texts("encodings", ("gzip", "br", "zstd")))


def max_body(at: Fields, name: str) -> Policy:
    """413 for more `bytes`."""
    return SizeLimit(at.whole("bytes", 1 << 20, low=0), answers.problem(413))


def log(at: Fields, name: str) -> Policy:
    """A line of JSON for each request at the end of `file`."""
    return FileLog(at.path_text("file"))


def correlation_id(at: Fields, name: str) -> Policy:
    """The client's id is kept, else one is made."""
    return CorrelationId(at.header_name("header", "X-Request-ID"), echo=at.flag("echo", True))


TYPES: Mapping[str, Callable[[Fields, str], Policy]] = {
    "limit": limit,
    "in_flight": in_flight,
    "jwt": jwt,
    "api_key": api_key,
    "login": login,
    "introspection": introspection,
    "require": require,
    "groups": groups,
    "addresses": addresses,
    "bots": bots,
    "forward_auth": forward_auth,
    "retry": retry,
    "timeout": timeout,
    "breaker": breaker,
    "stale": stale,
    "cache": cache,
    "cors": cors,
    "redirect": redirect,
    "respond": respond,
    "compress": compress,
    "max_body": max_body,
    "correlation_id": correlation_id,
    "log": log,
    **CHANGES,
}
