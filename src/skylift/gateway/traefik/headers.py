"""Traefik's `headers` middleware: headers set on the way there and back, CORS, and the security headers."""

from dataclasses import dataclass

from skylift.gateway.access import Policy
from skylift.gateway.policies import Cors, Edit, RequestTransform, ResponseTransform, Verb, Where
from skylift.gateway.reading import Fields, is_header
from skylift.gateway.template import plain

_SECURITY = (
    ("contentSecurityPolicy", "Content-Security-Policy"),
    ("contentSecurityPolicyReportOnly", "Content-Security-Policy-Report-Only"),
    ("referrerPolicy", "Referrer-Policy"),
    ("permissionsPolicy", "Permissions-Policy"),
    ("customBrowserXSSValue", "X-XSS-Protection"),
)


@dataclass(frozen=True, slots=True)
class OverTls:
    """A policy that only routers with `tls` have."""

    policy: Policy


_REMOVED = ("sslRedirect", "sslTemporaryRedirect", "sslForceHost", "sslHost")


def headers(at: Fields, name: str) -> tuple[Policy | OverTls, ...]:
    """Up to four policies: CORS, then the request's headers, then the answer's."""
    to_backend = _set(at, "customRequestHeaders")
    strict, everywhere = _strict_transport(at)
    to_client = (*_security(at), *_set(at, "customResponseHeaders"))
    cors = _cors(at)
    at.lacking("allowedHosts", "hosts are matched by rules")
    for field in _REMOVED:
        at.lacking(
            field, "it is gone from Traefik 3: redirect by redirectScheme or redirectRegex", (None, False, "")
        )
    at.lacking("featurePolicy", "browsers have forgotten it: use permissionsPolicy", (None, ""))
    at.ignored("isDevelopment", "publicKey", "addVaryHeader", "hostsProxyHeaders")
    found: list[Policy | OverTls] = [cors] if cors else []
    if strict:
        answer = ResponseTransform(strict)
        found.append(answer if everywhere else OverTls(answer))
    if to_backend:
        found.append(RequestTransform(to_backend))
    if to_client:
        found.append(ResponseTransform(to_client))
    return tuple(found)


def _set(at: Fields, field: str) -> tuple[Edit, ...]:
    """Whatever was there is overwritten; an empty value deletes."""
    table = at.table(field)
    if table is None:
        return ()
    found = []
    for name in table.value:
        if not is_header(name):
            table.wrong(name, None, "it must be a header's name: letters, digits and -")
            continue
        value = table.text(name)
        found.append(Edit(Verb.SET if value else Verb.REMOVE, Where.HEADER, name, plain(value)))
    return tuple(found)


def _strict_transport(at: Fields) -> tuple[tuple[Edit, ...], bool]:
    """The header, and whether it is said without TLS too: where it is forced, or another proxy ends TLS."""
    seconds = at.whole("stsSeconds", 0)
    parts = [f"max-age={seconds}"]
    parts += ["includeSubDomains"] if at.flag("stsIncludeSubdomains", False) else []
    parts += ["preload"] if at.flag("stsPreload", False) else []
    everywhere = at.flag("forceSTSHeader", False) or bool(at.mapping("sslProxyHeaders"))
    edit = Edit(Verb.SET, Where.HEADER, "Strict-Transport-Security", plain("; ".join(parts)))
    return (edit,) if seconds else (), everywhere


def _security(at: Fields) -> tuple[Edit, ...]:
    pairs: list[tuple[str, str]] = []
    frame = at.text("customFrameOptionsValue") or ("DENY" if at.flag("frameDeny", False) else "")
    at.ignored("frameDeny")
    if frame:
        pairs.append(("X-Frame-Options", frame))
    if at.flag("contentTypeNosniff", False):
        pairs.append(("X-Content-Type-Options", "nosniff"))
    if at.flag("browserXssFilter", False):
        pairs.append(("X-XSS-Protection", "1; mode=block"))
    pairs += [(header, at.text(field)) for field, header in _SECURITY if at.text(field)]
    return tuple(Edit(Verb.SET, Where.HEADER, name, plain(value)) for name, value in pairs)


def _cors(at: Fields) -> Cors | None:
    origins = at.texts("accessControlAllowOriginList")
    regexes = at.texts("accessControlAllowOriginListRegex")
    for number, regex in enumerate(regexes):
        at.regex(f"accessControlAllowOriginListRegex[{number}]", regex)
    age = at.whole("accessControlMaxAge", -1, low=0)
    made = Cors(
        origins,
        regexes,
        at.texts("accessControlAllowMethods"),
        at.texts("accessControlAllowHeaders"),
        at.texts("accessControlExposeHeaders"),
        at.flag("accessControlAllowCredentials", False),
        None if age < 0 else age,
    )
    return made if origins or regexes else None
