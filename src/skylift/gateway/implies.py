"""Whether every request that passes one condition passes another: the arithmetic of shadowed routes.

The answer yes is always right; no may mean "not seen" (two regexes are compared as texts only). Nothing here
tries requests: it looks at the trees.
"""

from ipaddress import IPv4Network, ip_network

from skylift.gateway.conditions import All, AnyOf, Condition, Not, Test
from skylift.gateway.text import REGEXES, Kind, Text


def implies(narrow: Condition, wide: Condition) -> bool:
    """Whether `narrow` holding means that `wide` holds."""
    if narrow == wide:
        return True
    match narrow, wide:
        case _, All(parts):
            return all(implies(narrow, part) for part in parts)
        case AnyOf(parts), _:
            return all(implies(part, wide) for part in parts)
        case All(parts), AnyOf(others):
            return any(implies(narrow, other) for other in others) or any(
                implies(part, wide) for part in parts
            )
        case _, AnyOf(others):
            return any(implies(narrow, other) for other in others)
        case All(parts), _:
            return any(implies(part, wide) for part in parts)
        case Not(inner), Not(outer):
            return implies(outer, inner)
        case Test(), Test():
            return _test_implies(narrow, wide)
        case _:
            return False


def _test_implies(narrow: Test, wide: Test) -> bool:
    if narrow.part is not wide.part or narrow.name.lower() != wide.name.lower():
        return False
    return all(any(covers(outer, inner) for outer in wide.texts) for inner in narrow.texts)


def covers(outer: Text, inner: Text) -> bool:
    """Whether every value that passes `inner` passes `outer`."""
    if outer == inner or outer.kind is Kind.PRESENT:
        return True
    if inner.ignore_case and not outer.ignore_case:
        return False
    if outer.kind is Kind.NETWORK or inner.kind is Kind.NETWORK:
        return outer.kind is inner.kind and _inside(inner.value, outer.value)
    if inner.kind is Kind.EXACT:
        return outer.matches(inner.value)
    if outer.kind in REGEXES or inner.kind in REGEXES:
        return False
    return _covers_plain(outer, inner)


def _covers_plain(outer: Text, inner: Text) -> bool:
    have, wanted = inner.value, outer.value
    if outer.ignore_case:
        have, wanted = have.lower(), wanted.lower()
    begins, ends = {Kind.PREFIX, Kind.SEGMENT}, {Kind.SUFFIX, Kind.ONE_LABEL}
    if outer.kind is Kind.PREFIX and inner.kind in begins:
        return have.startswith(wanted)
    if outer.kind is Kind.SEGMENT and inner.kind is Kind.SEGMENT:
        return outer.matches(inner.value)
    if outer.kind is Kind.SUFFIX and inner.kind in ends:
        return have.endswith(wanted)
    return False


def _inside(inner: str, outer: str) -> bool:
    small, big = ip_network(inner, strict=False), ip_network(outer, strict=False)
    if isinstance(small, IPv4Network):
        return isinstance(big, IPv4Network) and small.subnet_of(big)
    return not isinstance(big, IPv4Network) and small.subnet_of(big)
