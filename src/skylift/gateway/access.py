"""Policies that decide who may pass: tokens, keys, groups, addresses, and somebody else's opinion.

`Policy`, at the end, is every policy there is.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from skylift.gateway.policies import (
    PEER,
    AddPrefix,
    AddressFrom,
    Aggregate,
    Answer,
    Cache,
    CircuitBreaker,
    Compress,
    ConvertBody,
    CorrelationId,
    Cors,
    ErrorPages,
    FileLog,
    InFlight,
    JoinBase,
    RateLimit,
    Redirect,
    ReplacePath,
    ReplacePathRegex,
    RequestTransform,
    Respond,
    ResponseTransform,
    Retry,
    SizeLimit,
    StaleOnError,
    StripPrefix,
    StripPrefixRegex,
    Timeout,
)


class Fault(StrEnum):
    """Why somebody is not let in. `Refusals` gives each its answer."""

    MISSING = "no credential"
    SEVERAL = "more than one credential"
    MALFORMED = "not readable"
    NO_KEY_NAME = "the token does not say whose it is"
    UNKNOWN = "unknown credential"
    NO_ALGORITHM = "unsigned: its algorithm is none that signs"
    WRONG_ALGORITHM = "another algorithm than the credential's"
    BAD_SIGNATURE = "the signature does not verify"
    NOT_A_NUMBER = "a time claim is not a number"
    EXPIRED = "expired"
    NOT_YET = "not valid yet"
    CLAIM_MISSING = "a required claim is missing"
    TOO_LONG = "valid for longer than allowed"
    WRONG_AUDIENCE = "for another audience"
    FORBIDDEN = "not allowed"


@dataclass(frozen=True, slots=True)
class Refusals:
    """The answer to each fault; `otherwise` for those not listed."""

    otherwise: Answer
    by_fault: tuple[tuple[Fault, Answer], ...] = ()

    def answer(self, fault: Fault) -> Answer:
        return dict(self.by_fault).get(fault, self.otherwise)


class From(StrEnum):
    """Where a credential may stand."""

    HEADER = "header"
    QUERY = "query parameter"
    COOKIE = "cookie"
    BODY = "body field"


@dataclass(frozen=True, slots=True)
class CredentialPlace:
    """`scheme`: the word before it in a header (`Bearer`)."""

    kind: From
    name: str
    scheme: str = ""


@dataclass(frozen=True, slots=True)
class JwtKey:
    """One signer. `name`: the value of the claim that chooses it (an issuer). Exactly one of `secret` (HS*),
    `public_key` (PEM), `jwks` (its JSON) and `jwks_url` is given. `consumer`: who it is, or None."""

    name: str
    algorithms: tuple[str, ...]
    secret: bytes = field(default=b"", repr=False)
    public_key: str = ""
    jwks: str = ""
    jwks_url: str = ""
    consumer: str | None = None
    audiences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Jwt:
    """A bearer token. `verify`: which of exp and nbf are looked at where present; `required`: claims that
    must be there; `claim_headers`: what the backend is told, (claim, header)."""

    places: tuple[CredentialPlace, ...]
    keys: tuple[JwtKey, ...]
    refusals: Refusals
    key_claim: str = "iss"
    verify: frozenset[str] = frozenset({"exp", "nbf"})
    required: frozenset[str] = frozenset()
    leeway: int = 0
    maximum_expiration: int = 0
    claim_headers: tuple[tuple[str, str], ...] = ()
    anonymous: str | None = None  # the consumer that whoever fails becomes
    on_preflight: bool = True
    forward: bool = True


@dataclass(frozen=True, slots=True)
class Secret:
    """A credential that is compared: an API key, or a password as it is written in a users file."""

    value: str = field(repr=False)
    consumer: str | None = None
    name: str = ""  # the user name of basic auth
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    places: tuple[CredentialPlace, ...]
    keys: tuple[Secret, ...]
    refusals: Refusals
    hide: bool = False
    anonymous: str | None = None
    on_preflight: bool = True


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """`users[].value` is a hash: {SHA}, $2y$ (bcrypt) or $apr1$."""

    users: tuple[Secret, ...]
    refusals: Refusals
    realm: str = ""
    hide: bool = False
    header: str = ""  # tells the backend the user's name
    anonymous: str | None = None


@dataclass(frozen=True, slots=True)
class OAuth2Login:
    """Authorization code with PKCE; the session is in signed cookies."""

    authorization_url: str
    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    callback_path: str = "/oauth2/callback"
    logout_path: str = "/oauth2/logout"
    scopes: tuple[str, ...] = ("openid",)
    cookie_secret: str = field(default="", repr=False)
    pass_bearer: bool = True  # a request that brings its own bearer token is not sent to the login
    end_session_url: str = ""


@dataclass(frozen=True, slots=True)
class Introspection:
    """An opaque bearer token, asked about at its issuer (RFC 7662); the answer is believed for `cache` s."""

    url: str
    client_id: str
    refusals: Refusals
    client_secret: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ()
    cache: float = 30.0
    timeout: float = 2.0
    claim_headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Acl:
    """By the consumer's groups: in one of `allow` (if any is named) and in none of `deny`."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]
    refusals: Refusals  # MISSING: nobody is authenticated; FORBIDDEN: the wrong groups
    tell_backend: bool = True  # X-Consumer-Groups


@dataclass(frozen=True, slots=True)
class RequireClaim:
    """A role or a scope: the verified token's `claim` has one of `values` (all, with `every`). A list, or a
    text of words with spaces between."""

    claim: str
    values: tuple[str, ...]
    refusals: Refusals
    every: bool = False


@dataclass(frozen=True, slots=True)
class IpList:
    """Deny is looked at first; an empty `allow` allows everybody that is not denied."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]
    answer: Answer
    address: AddressFrom = PEER


@dataclass(frozen=True, slots=True)
class BotDetection:
    """By what a client says of itself in User-Agent: whom one of `allow` matches passes; whom one of `deny`
    matches, or who is a bot by its own word (`bots.KNOWN`), does not. Who says nothing passes."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]
    answer: Answer


class Trust(StrEnum):
    """What forward auth believes of X-Forwarded-* headers that a client sent."""

    NONE = "none"
    ALL = "all"
    SOME = "some"  # Traefik's old default: For, Proto, Method, Host and Uri overwritten, others pass


UNREACHABLE = Answer(500)


@dataclass(frozen=True, slots=True)
class ForwardAuth:
    """A service is asked with the request's headers; 2xx lets pass, anything else is the answer."""

    url: str
    trust: Trust = Trust.NONE
    request_headers: tuple[str, ...] = ()  # empty: all
    response_headers: tuple[str, ...] = ()
    response_headers_regex: str = ""
    keep_method: bool = False
    forward_body: bool = False
    max_body: int = -1
    timeout: float = 30.0
    unreachable: Answer = UNREACHABLE
    verify: bool = True  # the service's certificate, where it is https
    ca_file: str = ""  # empty: the machine's own authorities


@dataclass(frozen=True, slots=True)
class PerConsumer:
    """Another policy for some consumers: plans. `otherwise` None: nothing for everybody else."""

    otherwise: "Policy | None"
    plans: tuple[tuple[str, "Policy"], ...]


Authenticator = Jwt | ApiKey | BasicAuth | OAuth2Login | Introspection | ForwardAuth
Access = Authenticator | Acl | RequireClaim | IpList | BotDetection
Paths = JoinBase | StripPrefix | StripPrefixRegex | AddPrefix | ReplacePath | ReplacePathRegex
Traffic = Retry | Timeout | CircuitBreaker | RateLimit | InFlight | SizeLimit | Compress | FileLog
Change = RequestTransform | ResponseTransform | ConvertBody | Aggregate | CorrelationId
Answering = Redirect | Respond | Cors | ErrorPages | StaleOnError | Cache
Policy = Access | Paths | Traffic | Change | Answering | PerConsumer


def logs(policy: Policy) -> bool:
    """Whether it tells of a request, whatever became of it."""
    return isinstance(policy, FileLog) or (
        isinstance(policy, PerConsumer) and all(isinstance(plan, FileLog) for _, plan in policy.plans)
    )
