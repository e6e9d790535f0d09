"""What a gateway does to a request besides passing it on: each policy a frozen value.

Nothing here decides or compiles. Order is the route's (`model.Route.steps`): a reader puts the policies in
the order its dialect runs them (Kong by plugin priority, Traefik as listed) and nobody reorders them later.
Texts of refusals are part of the policy (`Answer`), so that Kong's JSON and Traefik's plain text need no
`if`. Security policies are in `access`, the rest here; `Policy` there is the union of all.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from skylift.gateway.template import Template, plain


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway says itself. Empty header values are never sent."""

    status: int
    body: Template = ()
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, Template], ...] = ()


# --- who is counted, who is hashed -------------------------------------------------------------------


class KeyKind(StrEnum):
    """What tells one client from another."""

    CLIENT = "client address"
    CONSUMER = "consumer"
    CREDENTIAL = "credential"
    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query parameter"
    CAPTURE = "path capture"
    CLAIM = "claim"
    HOST = "host"
    PATH = "path"
    EVERYBODY = "everybody"


@dataclass(frozen=True, slots=True)
class AddressFrom:
    """Which address is the client's: the socket's peer; `depth` n: the n-th of X-Forwarded-For from the
    right; `excluded`: the first from the right that is in none of these networks. `ipv6_prefix`: bits of an
    IPv6 address that count."""

    depth: int = 0
    excluded: tuple[str, ...] = ()
    ipv6_prefix: int = 128

    @property
    def forwarded(self) -> bool:
        """Whether X-Forwarded-For says it."""
        return self.depth > 0 or bool(self.excluded)


PEER = AddressFrom()


@dataclass(frozen=True, slots=True)
class Key:
    """`name`: of the header, cookie, parameter, claim. Where it has no value, the client's address counts if
    `else_client`, otherwise all such requests share one bucket."""

    kind: KeyKind
    name: str = ""
    address: AddressFrom = PEER
    else_client: bool = True


# --- limits ------------------------------------------------------------------------------------------


class Algorithm(StrEnum):
    """How requests are counted."""

    FIXED_WINDOW = "fixed window"  # aligned to the UTC calendar
    TOKEN_BUCKET = "token bucket"  # noqa: S105 - an algorithm, no password
    SLIDING_WINDOW = "sliding window"
    LEAKY_BUCKET = "leaky bucket"  # as a meter: excess is refused, not queued


class LimitHeaders(StrEnum):
    """Which headers tell a client where it stands."""

    NONE = "none"
    KONG = "kong"  # X-RateLimit-Limit-Minute ..., RateLimit-Limit ...
    IETF = "ietf"  # RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset


@dataclass(frozen=True, slots=True)
class Limit:
    """`count` requests in `seconds`. `burst`: the size of the bucket (token and leaky). `name`: `Minute`."""

    count: int
    seconds: float
    burst: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Redis:
    """A shared counter store, Redis or Valkey."""

    host: str
    port: int = 6379
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 2.0
    tls: bool = False


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Refuses with `answer` what goes over any of `limits`.

    `bucket`: the identity that counters belong to; two policies with the same bucket share them.
    `counts_refused`: a refused request counts too (Kong). `max_delay`: seconds a request that comes a little
    early is held before it is refused (Traefik).
    """

    bucket: str
    algorithm: Algorithm
    limits: tuple[Limit, ...]
    key: Key
    answer: Answer
    headers: LimitHeaders = LimitHeaders.NONE
    redis: Redis | None = None  # None: counted in this process
    fault_tolerant: bool = True  # a store that fails lets requests through; else they get 500
    counts_refused: bool = False
    max_delay: float = 0.0


@dataclass(frozen=True, slots=True)
class InFlight:
    """At most `amount` requests of one key at a time."""

    amount: int
    key: Key
    answer: Answer


# --- changing a request or an answer -----------------------------------------------------------------


class Verb(StrEnum):
    """What an edit does; Kong's five, and SET, which is Traefik's."""

    REMOVE = "remove"
    RENAME = "rename"  # only where it is present
    REPLACE = "replace"  # only where it is present
    ADD = "add"  # only where it is absent
    APPEND = "append"  # one more value
    SET = "set"  # whatever was there


class Where(StrEnum):
    """What an edit is done to."""

    HEADER = "header"
    QUERY = "query parameter"
    BODY = "body field"


class JsonType(StrEnum):
    """What a value in a JSON body becomes."""

    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class Edit:
    """One change. For RENAME `value` is the new name."""

    verb: Verb
    where: Where
    name: str
    value: Template = ()
    json_type: JsonType = JsonType.STRING


@dataclass(frozen=True, slots=True)
class RequestTransform:
    """`edits` in order; `method` and `path`, where given, replace the request's."""

    edits: tuple[Edit, ...] = ()
    method: str | None = None
    path: Template | None = None


@dataclass(frozen=True, slots=True)
class ResponseTransform:
    edits: tuple[Edit, ...] = ()


class Media(StrEnum):
    JSON = "json"
    XML = "xml"


@dataclass(frozen=True, slots=True)
class ConvertBody:
    """The backend speaks `backend`, the client `client`; at most `limit` bytes are converted (413 above).
    `root`: the name of the outermost XML element."""

    client: Media
    backend: Media
    root: str = "root"
    limit: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """One backend of an aggregate: its answer stands under `name`."""

    name: str
    service: str
    path: Template
    required: bool = False  # without it the whole answer is a 502; else it is named in `_failed`


@dataclass(frozen=True, slots=True)
class Aggregate:
    """All sources are asked at once, and one JSON object answers."""

    sources: tuple[Source, ...]
    timeout: float = 5.0


class Generator(StrEnum):
    """How a correlation id is made."""

    UUID = "uuid"
    UUID_COUNTER = "uuid#counter"
    TRACKER = "tracker"


@dataclass(frozen=True, slots=True)
class CorrelationId:
    """A client's id is kept, else one is made. `echo`: the answer carries it too."""

    header: str
    generator: Generator = Generator.UUID
    echo: bool = False


# --- the path that the backend sees -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JoinBase:
    """Kong's path handling v0: the matched part cut off (`strip`), what is left put behind the service's
    path with one slash between."""

    base: str = "/"
    strip: bool = True


@dataclass(frozen=True, slots=True)
class StripPrefix:
    """The first of these that the path begins with is cut; X-Forwarded-Prefix says which."""

    prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StripPrefixRegex:
    regexes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddPrefix:
    prefix: str


@dataclass(frozen=True, slots=True)
class ReplacePath:
    """X-Replaced-Path says what was there."""

    path: str


@dataclass(frozen=True, slots=True)
class ReplacePathRegex:
    """`replacement` in Go's words: `$1`, `${name}`."""

    regex: str
    replacement: str


# --- answering without the backend ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Redirect:
    """To another scheme and port (`scheme`), or by a regex over the whole URL. With `keeps_method` other
    methods than GET are told 307 for 302 and 308 for 301, so that a POST stays one."""

    status: int = 302
    scheme: str = ""
    port: str = ""
    regex: str = ""
    replacement: str = ""
    keeps_method: bool = False

    def status_for(self, method: str) -> int:
        return KEEPING.get(self.status, self.status) if self.keeps_method and method != "GET" else self.status


KEEPING = {301: 308, 302: 307}  # the statuses that leave a request's method as it is


@dataclass(frozen=True, slots=True)
class Respond:
    """Always this answer."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Cors:
    origins: tuple[str, ...] = ("*",)
    origin_regexes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int | None = None
    pass_preflight: bool = False
    preflight_status: int = 200


@dataclass(frozen=True, slots=True)
class ErrorPages:
    """A backend's answer with one of these statuses is replaced by the body `service` gives at `path`."""

    statuses: tuple[tuple[int, int], ...]
    service: str
    path: str


@dataclass(frozen=True, slots=True)
class StaleOnError:
    """A GET's last good answer, up to `max_age` seconds old, where the backend fails with one of `statuses`.
    Kept per host, path, query and consumer; an answer over `max_bytes` is not kept."""

    statuses: tuple[int, ...] = (500, 502, 503, 504)
    max_age: float = 3600.0
    entries: int = 500
    max_bytes: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class Cache:
    """Answers kept for `ttl` seconds."""

    ttl: int = 300
    methods: tuple[str, ...] = ("GET", "HEAD")
    statuses: tuple[int, ...] = (200, 301, 404)
    content_types: tuple[str, ...] = ("text/plain", "application/json")
    vary_headers: tuple[str, ...] = ()
    vary_query: tuple[str, ...] | None = None  # None: all
    obey_cache_control: bool = False


# --- traffic --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retry:
    """`tries` more after the first, each at another target where there is one. A request that reached the
    backend is sent again only if its method is idempotent or `non_idempotent`."""

    tries: int
    statuses: tuple[tuple[int, int], ...] = ()
    on_network_error: bool = True
    non_idempotent: bool = False
    interval: float = 0.0
    per_try: float = 0.0


@dataclass(frozen=True, slots=True)
class Timeout:
    """Of a whole exchange, in seconds."""

    seconds: float


class Trips(StrEnum):
    """What opens a circuit breaker."""

    NETWORK_ERRORS = "network error ratio"
    STATUS_RATIO = "response code ratio"
    LATENCY = "latency at quantile"


Comparison = tuple[Trips, tuple[float, ...], float]  # what, its numbers, the limit it must exceed


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Opens when, of any of `when`, all comparisons hold; refuses for `open_for` seconds, then lets traffic
    back over `recovery` seconds."""

    when: tuple[tuple[Comparison, ...], ...]
    answer: Answer
    expression: str = ""
    check_period: float = 0.1
    open_for: float = 10.0
    recovery: float = 10.0


@dataclass(frozen=True, slots=True)
class Compress:
    minimum: int = 1024
    encodings: tuple[str, ...] = ("gzip", "br", "zstd")
    excluded: tuple[str, ...] = ()
    included: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileLog:
    """A line of JSON at the end of this file for each request, whatever became of it."""

    path: str


TOO_LARGE = Answer(413, plain("Payload too large"))


@dataclass(frozen=True, slots=True)
class SizeLimit:
    """Bodies above `request` bytes get `answer`; `length_required`: the answer to those without a length."""

    request: int
    answer: Answer = TOO_LARGE
    length_required: Answer | None = None
