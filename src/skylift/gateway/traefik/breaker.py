"""Traefik's circuit breaker expressions: comparisons joined by ||.

NetworkErrorRatio() > 0.30 || ResponseCodeRatio(500, 600, 0, 600) > 0.25 || LatencyAtQuantileMS(50.0) > 100
"""

import re

from skylift.gateway.policies import Trips

_ONE = re.compile(r"\s*(\w+)\(([^()]*)\)\s*(>=|>)\s*(\d+(?:\.\d+)?)\s*")
_FUNCTIONS = {
    "NetworkErrorRatio": (Trips.NETWORK_ERRORS, 0),
    "ResponseCodeRatio": (Trips.STATUS_RATIO, 4),
    "LatencyAtQuantileMS": (Trips.LATENCY, 1),
}


class BreakerFault(ValueError):
    """What is wrong with an expression."""


def conditions(expression: str) -> tuple[tuple[Trips, tuple[float, ...], float], ...]:
    """Every comparison: what is measured, its numbers, the limit it must exceed."""
    if "&&" in expression:
        raise BreakerFault("comparisons are joined by || only: && is not known here")
    return tuple(_comparison(part) for part in expression.split("||"))


def _comparison(text: str) -> tuple[Trips, tuple[float, ...], float]:
    found = _ONE.fullmatch(text)
    if found is None or found[1] not in _FUNCTIONS:
        known = ", ".join(_FUNCTIONS)
        raise BreakerFault(f"{text.strip()!r} is no comparison (>) of {known} with a number")
    what, count = _FUNCTIONS[found[1]]
    words = [word.strip() for word in found[2].split(",")] if found[2].strip() else []
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = ()
    if len(numbers) != count or len(words) != count:
        raise BreakerFault(f"{found[1]} takes {count} numbers")
    return what, numbers, float(found[4])
