"""Who may pass, on paper: each function says yes with a sentence, or ends the request with an answer."""

import json
from collections.abc import Iterable, Sequence

from skylift.gateway.access import (
    Acl,
    ApiKey,
    BasicAuth,
    BotDetection,
    CredentialPlace,
    Fault,
    ForwardAuth,
    From,
    Introspection,
    IpList,
    Jwt,
    OAuth2Login,
    Refusals,
    RequireClaim,
    Secret,
)
from skylift.gateway.bots import KNOWN
from skylift.gateway.flow import Flow, cookies
from skylift.gateway.policies import Answer, InFlight, SizeLimit
from skylift.gateway.template import plain
from skylift.gateway.text import compile_regex, in_network
from skylift.gateway.tokens import Believed, judge

Said = str | tuple[str, Answer]  # a sentence; with an answer the request ends here


def credentials(flow: Flow, places: Sequence[CredentialPlace]) -> list[str]:
    """Every credential that stands in one of these places, in their order."""
    found: list[str] = []
    for place in places:
        match place.kind:
            case From.HEADER:
                values = flow.values(place.name)
                found += [_after(place.scheme, value) for value in values] if place.scheme else values
            case From.QUERY:
                found += [value for name, value in flow.query if name == place.name]
            case From.COOKIE:
                found.append(cookies(flow.request).get(place.name, ""))
            case From.BODY:
                found.append(_body_field(flow.body, place.name))
    return [each for each in found if each]


def _after(scheme: str, value: str) -> str:
    word, _, rest = value.strip().partition(" ")
    return rest.strip() if word.lower() == scheme.lower() else ""


def _body_field(body: bytes, name: str) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""


def become(flow: Flow, consumer: str | None, credential: str = "", anonymous: bool = False) -> None:
    """From here on the request is this consumer's, and the backend is told."""
    flow.consumer = flow.gateway.consumers.get(consumer) if consumer else None
    flow.credential = credential or None
    if not flow.gateway.forwarding.consumer_headers:
        return
    told = {
        "X-Consumer-ID": flow.consumer.id if flow.consumer else "",
        "X-Consumer-Custom-ID": flow.consumer.custom_id if flow.consumer else "",
        "X-Consumer-Username": flow.consumer.name if flow.consumer else "",
        "X-Credential-Identifier": "" if anonymous else credential,
        "X-Anonymous-Consumer": "true" if anonymous else "",
    }
    for name, value in told.items():
        flow.drop(name)
        if value:
            flow.headers.append((name, value))


def _refuse(flow: Flow, refusals: Refusals, fault: Fault, why: str, anonymous: str | None) -> Said:
    if anonymous is not None:
        become(flow, anonymous, anonymous=True)
        return f"{why}: goes on as {anonymous}"
    return why, refusals.answer(fault)


def _known_already(flow: Flow, anonymous: str | None) -> str | None:
    """Ways in that may each be passed over (`anonymous`) are alternatives: the first that knows who it is
    decides."""
    if anonymous is None or flow.consumer is None or flow.credential is None:
        return None
    return f"{flow.consumer.name} is known already"


def _preflight(flow: Flow, on_preflight: bool) -> bool:
    return flow.method == "OPTIONS" and not on_preflight


def jwt(flow: Flow, policy: Jwt) -> Said:
    if _preflight(flow, policy.on_preflight):
        return "a preflight is let through"
    if known := _known_already(flow, policy.anonymous):
        return known
    for _, header in policy.claim_headers:
        flow.drop(header)  # what a client claims about itself is not believed
    verdict = judge(policy, tuple(credentials(flow, policy.places)), flow.world.now, flow.world.verify)
    if not isinstance(verdict, Believed):
        flow.about = verdict.about
        about = f" ({verdict.about})" if verdict.about else ""
        return _refuse(flow, policy.refusals, verdict.fault, f"{verdict.fault}{about}", policy.anonymous)
    flow.claims = verdict.claims
    become(flow, verdict.key.consumer, verdict.key.name)
    for claim, header in policy.claim_headers:
        if claim in verdict.claims:
            value = verdict.claims[claim]
            flow.put(header, value if isinstance(value, str) else json.dumps(value))
    if not policy.forward:
        hide(flow, policy.places)
    who = f", consumer {verdict.key.consumer}" if verdict.key.consumer else ""
    return f"a valid token of {verdict.key.name}{who}"


def hide(flow: Flow, places: Sequence[CredentialPlace]) -> None:
    """Credentials go no further."""
    for place in places:
        if place.kind is From.HEADER:
            flow.drop(place.name)
        elif place.kind is From.QUERY:
            flow.query = [pair for pair in flow.query if pair[0] != place.name]


def api_key(flow: Flow, policy: ApiKey) -> Said:
    if _preflight(flow, policy.on_preflight):
        return "a preflight is let through"
    if known := _known_already(flow, policy.anonymous):
        return known
    places = policy.places
    for place in places:
        if len(credentials(flow, (place,))) > 1:
            why = f"{place.kind} {place.name} is given twice"
            return _refuse(flow, policy.refusals, Fault.SEVERAL, why, policy.anonymous)
    given = credentials(flow, places)
    if not given:
        names = ", ".join(dict.fromkeys(place.name for place in places))
        return _refuse(flow, policy.refusals, Fault.MISSING, f"no API key ({names})", policy.anonymous)
    key = _find(policy.keys, given[0], flow.world.now)
    if key is None:
        return _refuse(flow, policy.refusals, Fault.UNKNOWN, "an unknown API key", policy.anonymous)
    become(flow, key.consumer, key.name or key.consumer or "")
    if policy.hide:
        hide(flow, places)
    return f"a known API key, consumer {key.consumer}" if key.consumer else "a known API key"


def _find(keys: Sequence[Secret], value: str, now: float) -> Secret | None:
    return next(
        (key for key in keys if key.value == value and (key.expires_at is None or key.expires_at > now)), None
    )


def basic_auth(flow: Flow, policy: BasicAuth) -> Said:
    """Passwords are hashes here: the reference says who would be asked, not whether the password is right."""
    if known := _known_already(flow, policy.anonymous):
        return known
    given = credentials(flow, (CredentialPlace(From.HEADER, "authorization", "Basic"),))
    if not given:
        return _refuse(flow, policy.refusals, Fault.MISSING, "no user name and password", policy.anonymous)
    return f"user name and password are looked up among {len(policy.users)}"


def oauth2_login(flow: Flow, policy: OAuth2Login) -> Said:
    if policy.pass_bearer and any(_after("Bearer", value) for value in flow.values("authorization")):
        return "it brings its own bearer token: no login"
    if any(name in cookies(flow.request) for name in ("BearerToken", "OauthHMAC")):
        return "it brings a session"
    location = (("Location", plain(f"{policy.authorization_url}?client_id={policy.client_id}")),)
    return "no session: sent to the login", Answer(302, headers=location)


def introspection(flow: Flow, policy: Introspection) -> Said:
    given = [_after("Bearer", value) for value in flow.values("authorization")]
    if not any(given):
        return "no bearer token", policy.refusals.answer(Fault.MISSING)
    status, claims = flow.world.ask(policy, flow.request)
    if status >= 300 or claims.get("active", "true") == "false":
        return "the issuer does not know the token", policy.refusals.answer(Fault.UNKNOWN)
    flow.claims = claims
    missing = [scope for scope in policy.scopes if scope not in claims.get("scope", "").split()]
    if missing:
        return f"the token has no scope {missing[0]}", policy.refusals.answer(Fault.FORBIDDEN)
    for claim, header in policy.claim_headers:
        flow.put(header, claims.get(claim, ""))
    return "the issuer knows the token"


def acl(flow: Flow, policy: Acl) -> Said:
    if flow.consumer is None:
        return "nobody is authenticated", policy.refusals.answer(Fault.MISSING)
    groups = flow.consumer.groups
    shown = ", ".join(groups) or "no group"
    denied = set(groups) & set(policy.deny)
    if denied or (policy.allow and not set(groups) & set(policy.allow)):
        rule = f"not {', '.join(policy.deny)}" if denied else ", ".join(policy.allow)
        return f"{flow.consumer.name} is in {shown}, asked for is {rule}", policy.refusals.answer(
            Fault.FORBIDDEN
        )
    if policy.tell_backend and groups:
        flow.put("X-Consumer-Groups", ", ".join(groups))
    return f"{flow.consumer.name} is in {shown}"


def require_claim(flow: Flow, policy: RequireClaim) -> Said:
    found = flow.claims.get(policy.claim)
    have = set(found.split()) if isinstance(found, str) else set(found or ())
    wanted = set(policy.values)
    if not (wanted <= have if policy.every else wanted & have):
        word = " and " if policy.every else " or "
        is_now = " ".join(sorted(have)) or "absent"
        why = f"claim {policy.claim} is {is_now}, asked for is {word.join(policy.values)}"
        return why, policy.refusals.answer(Fault.FORBIDDEN)
    return f"claim {policy.claim} has {' '.join(sorted(wanted & have))}"


def ip_list(flow: Flow, policy: IpList) -> Said:
    address = flow.address(policy.address)
    denied = next((net for net in policy.deny if in_network(address, net)), None)
    if denied:
        return f"{address} is in {denied}, which is denied", policy.answer
    if policy.allow and not any(in_network(address, net) for net in policy.allow):
        return f"{address or 'no address'} is in none of {', '.join(policy.allow)}", policy.answer
    return f"{address} may pass"


def bot_detection(flow: Flow, policy: BotDetection) -> Said:
    """Two headers are one to the data plane, with a comma between."""
    given = flow.values("user-agent")
    if not given:
        return "it does not say what it is: it may pass"
    agent = ",".join(given)
    if allowed := _first_of(policy.allow, agent):
        return f"{agent} matches {allowed}, which may pass"
    if denied := _first_of(policy.deny, agent):
        return f"{agent} matches {denied}, which may not", policy.answer
    if _first_of((KNOWN,), agent):
        return f"{agent} is known as a bot", policy.answer
    return f"{agent} is no bot that is known"


def _first_of(regexes: Iterable[str], text: str) -> str | None:
    return next((regex for regex in regexes if compile_regex(regex).search(text)), None)


def forward_auth(flow: Flow, policy: ForwardAuth) -> Said:
    status, headers = flow.world.ask(policy, flow.request)
    if not 200 <= status < 300:
        answer = Answer(status, headers=tuple((name, plain(value)) for name, value in headers.items()))
        return f"{policy.url} says {status}: its answer is given to the client", answer
    names = (
        *policy.response_headers,
        *_chosen(policy.response_headers_regex, (*headers, *dict(flow.headers))),
    )
    for name in dict.fromkeys(names):
        flow.drop(name)
        value = next((value for key, value in headers.items() if key.lower() == name.lower()), None)
        if value is not None:
            flow.headers.append((name, value))
    return f"{policy.url} is asked, and lets it pass with 2xx (assumed here)"


def _chosen(regex: str, names: Iterable[str]) -> tuple[str, ...]:
    """The headers whose names an expression matches."""
    compiled = compile_regex(regex, ignore_case=True)
    return tuple(name for name in names if regex and compiled.search(name))


def size_limit(flow: Flow, policy: SizeLimit) -> Said:
    length = flow.request.header("content-length")
    size = int(length) if length is not None and length.isdecimal() else len(flow.request.body)
    if size > policy.request:
        return f"{size} bytes, at most {policy.request} may come", policy.answer
    chunked = "chunked" in (flow.request.header("transfer-encoding") or "")
    if policy.length_required and length is None and not chunked:
        return "it does not say how long its body is", policy.length_required
    return f"{size} bytes of at most {policy.request}"


def in_flight(flow: Flow, policy: InFlight) -> Said:
    return f"at most {policy.amount} at a time per {policy.key.kind}"
