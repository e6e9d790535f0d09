"""Who may pass once it is known who asks: groups, claims, addresses; and what only some consumers get."""

from collections.abc import Iterable, Mapping

from skylift.gateway.access import Acl, BotDetection, Fault, IpList, PerConsumer, RequireClaim
from skylift.gateway.bots import KNOWN
from skylift.gateway.envoy import limiting
from skylift.gateway.envoy.formats import CONSUMER, addresses, header
from skylift.gateway.envoy.pieces import Book, Piece
from skylift.gateway.envoy.snapshot import TYPE, Json
from skylift.gateway.envoy.transforms import mutation
from skylift.gateway.errors import Problem, Refused
from skylift.gateway.helper.asked import CLAIM
from skylift.gateway.model import Gateway
from skylift.gateway.policies import Answer, Respond
from skylift.gateway.text import over_subnets

GROUPS = "x-sl-groups"
CLAIMS = "payload"  # the name under which the verified token's claims are kept
TOKENS = "envoy.filters.http.jwt_authn"  # by whom
RBAC = TYPE + "envoy.extensions.filters.http.rbac.v3.RBAC"


def _deny(policies: Mapping[str, list[Json]], **more: Json) -> Piece:
    """One RBAC filter that refuses whoever is one of these; the first in the order of their names decides.
    `more`: what else must hold."""
    rules = {
        name: {"permissions": [{"any": True}], "principals": principals, **more}
        for name, principals in policies.items()
    }
    own = {"@type": RBAC + "PerRoute", "rbac": {"rules": {"action": "DENY", "policies": rules}}}
    return Piece("rules", {"@type": RBAC}, own)


def _named(what: str, answer: Answer, book: Book) -> str:
    name = f"{what}-{book.number():04d}"
    book.reply(f"response.code_details == 'rbac_access_denied_matched_policy[{name}]'", answer)
    return name


def _has(name: str, regex: str) -> Json:
    return {"header": {"name": name, "string_match": {"safe_regex": {"regex": regex}}}}


def acl(policy: Acl, gateway: Gateway, book: Book) -> list[Piece]:
    missing = _named("acl-a", policy.refusals.answer(Fault.MISSING), book)
    wrong = _named("acl-b", policy.refusals.answer(Fault.FORBIDDEN), book)
    nobody = {"not_id": {"header": {"name": CONSUMER, "present_match": True}}}
    refused = [_in_groups(policy.deny)] if policy.deny else []
    refused += [{"not_id": _in_groups(policy.allow)}] if policy.allow else []
    pieces = [_deny({missing: [nobody], wrong: refused or [{"any": False}]})]
    told = [{"append": header("x-consumer-groups", f"%REQ({GROUPS})%")}]
    return pieces + ([mutation(told)] if policy.tell_backend else [])


def _in_groups(groups: Iterable[str]) -> Json:
    names = "|".join(_escaped(group) for group in groups)
    return _has(GROUPS, f"(?:.*, )?(?:{names})(?:, .*)?")


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() or c in " _" else f"\\{c}" for c in text)


def require_claim(policy: RequireClaim, gateway: Gateway, book: Book) -> list[Piece]:
    name = _named("claim", policy.refusals.answer(Fault.FORBIDDEN), book)
    each = [_claim(policy.claim, value) for value in policy.values]
    book.ours.add(f"{CLAIM}{policy.claim.lower()}")
    wanted = {"and_ids": {"ids": each}} if policy.every else {"or_ids": {"ids": each}}
    return [_deny({name: [{"not_id": wanted}]})]


def _claim(claim: str, value: str) -> Json:
    """A list that has the value, or words of which it is one."""
    path = [{"key": CLAIMS}, {"key": claim}]
    word = {"string_match": {"safe_regex": {"regex": f"(?:.* )?{_escaped(value)}(?: .*)?"}}}
    listed = {"list_match": {"one_of": {"string_match": {"exact": value}}}}
    both = [{"metadata": {"filter": TOKENS, "path": path, "value": how}} for how in (word, listed)]
    told = _has(f"{CLAIM}{claim.lower()}", f"(?:.* )?{_escaped(value)}(?: .*)?")  # by the helper
    return {"or_ids": {"ids": [*both, told]}}


def expires_within(seconds: int, answer: Answer, book: Book) -> Piece:
    """A verified token that is valid for longer is refused. Its exp is there and a number: that was looked at
    before."""
    exp = _member(_ident("metadata"), "filter_metadata", TOKENS, CLAIMS, "exp")
    now = _call("double", _call("int", _member(_ident("request"), "time")))
    left = _call("_-_", exp, now)
    too_long = _call("_>_", left, {"const_expr": {"double_value": float(seconds)}})
    return _deny({_named("long", answer, book): [{"any": True}]}, condition=too_long)


# An expression (CEL) as a tree: Envoy's rules read no text.


def _ident(name: str) -> Json:
    return {"ident_expr": {"name": name}}


def _member(of: Json, *names: str) -> Json:
    """A name with a dot in it is no field's: it is looked up."""
    for name in names:
        if "." in name:
            of = _call("_[_]", of, {"const_expr": {"string_value": name}})
        else:
            of = {"select_expr": {"operand": of, "field": name}}
    return of


def _call(function: str, *of: Json) -> Json:
    return {"call_expr": {"function": function, "args": list(of)}}


def ip_list(policy: IpList, gateway: Gateway, book: Book) -> list[Piece]:
    if policy.address.forwarded:
        return [limiting.forwarded_addresses(policy)]
    return [_deny({_named("ip", policy.answer, book): _elsewhere(policy)})]


def _elsewhere(policy: IpList) -> list[Json]:
    """Who has none of the addresses that may pass."""
    bits = policy.address.ipv6_prefix
    refused = [_network(network) for network in over_subnets(policy.deny, bits)]
    if policy.allow:
        allowed = [_network(network) for network in over_subnets(policy.allow, bits)]
        refused.append({"not_id": {"or_ids": {"ids": allowed}}})
    return refused


def bot_detection(policy: BotDetection, gateway: Gateway, book: Book) -> list[Piece]:
    refused = [_has("user-agent", _anywhere((*policy.deny, KNOWN)))]
    if policy.allow:
        refused.append({"not_id": _has("user-agent", _anywhere(policy.allow))})
    return [_deny({_named("bots", policy.answer, book): [{"and_ids": {"ids": refused}}]})]


def _anywhere(regexes: Iterable[str]) -> str:
    """One expression over the whole of a text that holds a match of any of these."""
    return f"(?s:.*?)(?:{'|'.join(f'(?:{regex})' for regex in regexes)})(?s:.*)"


BY_CONSUMER = (IpList, Respond)


def per_consumer(policy: PerConsumer, gateway: Gateway, book: Book) -> list[Piece]:
    """Refusals that are one consumer's own: addresses, and answers in the place of the backend's."""
    each = [(_is(name), plan) for name, plan in policy.plans]
    if policy.otherwise is not None:
        somebody: Json = {"or_ids": {"ids": [who for who, _ in each]}}
        each.append(({"not_id": somebody}, policy.otherwise))
    return [_deny(dict(_refused(who, plan, book) for who, plan in each))]


def _is(consumer: str) -> Json:
    return {"header": {"name": CONSUMER, "string_match": {"exact": consumer}}}


def _refused(who: Json, policy: object, book: Book) -> tuple[str, list[Json]]:
    match policy:
        case IpList() if not policy.address.forwarded:
            elsewhere: Json = {"or_ids": {"ids": _elsewhere(policy)}}
            return _named("ip", policy.answer, book), [{"and_ids": {"ids": [who, elsewhere]}}]
        case Respond():
            return _named("ends", policy.answer, book), [who]
        case _:
            what = f"{type(policy).__name__} cannot differ by consumer beside addresses and answers"
            raise Refused([Problem("", "plans", what)])


def _network(network: str) -> Json:
    return {"remote_ip": addresses(network)}


def length_required(answer: Answer, book: Book) -> Piece:
    """Bodies without a length are refused; requests without a body have none to tell."""
    name = _named("length", answer, book)
    told = {"header": {"name": "content-length", "present_match": True}}
    bodiless = _has(":method", "GET|HEAD|DELETE|OPTIONS|TRACE")
    return _deny({name: [{"not_id": {"or_ids": {"ids": [told, bodiless]}}}]})
