"""Traefik's circuit breaker expressions: comparisons joined by && and ||, with parentheses.

NetworkErrorRatio() > 0.30 || (ResponseCodeRatio(500, 600, 0, 600) > 0.25 && LatencyAtQuantileMS(50.0) > 100)

They are multiplied out as they are read: alternatives, each of comparisons that must all hold.
"""

import re

from skylift.gateway.policies import Comparison, Trips

_WORD = re.compile(r"\s*(?:(?P<sign>&&|\|\||[()])|(?P<comparison>\w+\([^()]*\)\s*[<>=!]*\s*[\w.]*))")
_ONE = re.compile(r"(\w+)\(([^()]*)\)\s*(>=|>)\s*(\d+(?:\.\d+)?)")
_FUNCTIONS = {
    "NetworkErrorRatio": (Trips.NETWORK_ERRORS, 0),
    "ResponseCodeRatio": (Trips.STATUS_RATIO, 4),
    "LatencyAtQuantileMS": (Trips.LATENCY, 1),
}
MOST_WORDS = 100
MOST = 16  # breaker.c: MAX_TRIPS
When = tuple[tuple[Comparison, ...], ...]


class BreakerFault(ValueError):
    """What is wrong with an expression."""


def conditions(expression: str) -> When:
    """Alternatives, each of comparisons that must all hold: what is measured, its numbers, the limit it must
    exceed."""
    reader = _Reader(_words(expression))
    found = reader.either()
    if reader.words:
        raise BreakerFault(f"&& or || is missing before {_shown(reader.words[0])}")
    return _few(found)


def _words(expression: str) -> list[str | Comparison]:
    found: list[str | Comparison] = []
    at, end = 0, len(expression.rstrip())
    while at < end:
        word = _WORD.match(expression, at)
        if word is None or len(found) == MOST_WORDS:
            raise _no_comparison(expression[at:])
        found.append(word["sign"] or _comparison(word["comparison"]))
        at = word.end()
    return found


def _no_comparison(text: str) -> BreakerFault:
    known = ", ".join(_FUNCTIONS)
    return BreakerFault(f"{text.strip()[:80]!r} is no comparison (>) of {known} with a number")


def _comparison(text: str) -> Comparison:
    found = _ONE.fullmatch(text.strip())
    if found is None or found[1] not in _FUNCTIONS:
        raise _no_comparison(text)
    what, count = _FUNCTIONS[found[1]]
    words = [word.strip() for word in found[2].split(",")] if found[2].strip() else []
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = ()
    if len(numbers) != count or len(words) != count:
        raise BreakerFault(f"{found[1]} takes {count} numbers")
    return what, numbers, float(found[4])


class _Reader:
    """What is left of an expression's words."""

    def __init__(self, words: list[str | Comparison]) -> None:
        self.words = words

    def either(self) -> When:
        found = self._both()
        while self._takes("||"):
            found += self._both()
        return found

    def _both(self) -> When:
        found = self._one()
        while self._takes("&&"):
            right = self._one()
            found = _few(tuple(a + b for a in found for b in right))
        return found

    def _one(self) -> When:
        if self._takes("("):
            inner = self.either()
            if not self._takes(")"):
                raise BreakerFault("a ( is not closed")
            return inner
        word = self.words.pop(0) if self.words else ""
        if isinstance(word, str):
            raise BreakerFault(f"a comparison is missing {f'before {word}' if word else 'at the end'}")
        return ((word,),)

    def _takes(self, sign: str) -> bool:
        if not self.words or self.words[0] != sign:
            return False
        self.words.pop(0)
        return True


def _few(when: When) -> When:
    if sum(map(len, when)) > MOST:
        raise BreakerFault(f"multiplied out it has more than {MOST} comparisons")
    return when


def _shown(word: str | Comparison) -> str:
    return word if isinstance(word, str) else f"the {word[0]}"
