"""Regular expressions that take exponential time where they are not run by RE2.

The data plane runs RE2, which is linear; Kong's own and Python's are not, and a pattern of this kind never
says more than a simpler one. It is looked for in the parsed pattern: an unbounded repetition whose body can
match one text in two ways, because it repeats something inside that nothing separates (`(a+)+`, `(ab|.b)*`,
`(.*,?)*`). `(/[a-z]+)*` is separated by its slash and passes.
"""

import re
from importlib import import_module
from typing import Any

from skylift.gateway.text import compile_regex

words: Any = import_module("re._constants")  # no public name gives the parsed pattern
parser: Any = import_module("re._parser")

MAX_BODY = 3  # repeats of more than that count as unbounded
ANYTHING = frozenset(range(128))


def explodes(pattern: str) -> bool:
    """Whether the pattern holds such a repetition."""
    python = compile_regex(pattern).pattern
    try:
        return _any(parser.parse(python))
    except (re.error, RecursionError):
        return True


def _any(parsed: Any) -> bool:
    return any(_bad(op, arguments) for op, arguments in parsed)


def _bad(op: Any, arguments: Any) -> bool:
    if op in (words.MAX_REPEAT, words.MIN_REPEAT):
        _, high, body = arguments
        return (high > MAX_BODY and _ambiguous(body)) or _any(body)
    return any(_any(inner) for inner in _inside(op, arguments))


def _inside(op: Any, arguments: Any) -> list[Any]:
    """The patterns inside a part."""
    if op is words.SUBPATTERN:
        return [arguments[-1]]
    if op is words.BRANCH:
        return list(arguments[1])
    return []


def _ambiguous(body: Any) -> bool:
    """Whether a body that is repeated can take one text in several ways."""
    parts = list(body)
    while len(parts) == 1 and parts[0][0] is words.SUBPATTERN:
        parts = list(parts[0][1][-1])
    if len(parts) == 1 and parts[0][0] is words.BRANCH:
        firsts = [_characters(branch[:1]) for branch in parts[0][1][1]]
        overlap = any(a & b for n, a in enumerate(firsts) for b in firsts[n + 1 :])
        return overlap or any(_ambiguous(branch) for branch in parts[0][1][1])
    repeated = [part for part in parts if _unbounded(part)]
    if not repeated:
        return False
    separators = [_characters([part]) for part in parts if not _optional(part) and not _unbounded(part)]
    inside = frozenset().union(*(_characters([part]) for part in repeated))
    return not any(separator and not separator & inside for separator in separators)


def _unbounded(part: Any) -> bool:
    op, arguments = part
    if op in (words.MAX_REPEAT, words.MIN_REPEAT):
        return bool(arguments[1] > MAX_BODY)
    return op is words.SUBPATTERN and len(arguments[-1]) == 1 and _unbounded(arguments[-1][0])


def _optional(part: Any) -> bool:
    op, arguments = part
    return op is words.AT or (op in (words.MAX_REPEAT, words.MIN_REPEAT) and arguments[0] == 0)


def _characters(parts: Any) -> frozenset[int]:
    """Which ASCII characters parts may take; too many rather than too few."""
    found: set[int] = set()
    for op, arguments in parts:
        if op is words.LITERAL:
            found.add(arguments)
        elif op is words.NOT_LITERAL:
            found |= ANYTHING - {arguments}
        elif op is words.IN:
            found |= _class(arguments)
        elif op in (words.MAX_REPEAT, words.MIN_REPEAT):
            found |= _characters(arguments[2])
        elif op is words.SUBPATTERN:
            found |= _characters(arguments[-1])
        elif op is words.BRANCH:
            for branch in arguments[1]:
                found |= _characters(branch)
        elif op is not words.AT:
            return ANYTHING
    return frozenset(found)


_CATEGORIES = {
    words.CATEGORY_DIGIT: r"\d",
    words.CATEGORY_NOT_DIGIT: r"\D",
    words.CATEGORY_SPACE: r"\s",
    words.CATEGORY_NOT_SPACE: r"\S",
    words.CATEGORY_WORD: r"\w",
    words.CATEGORY_NOT_WORD: r"\W",
}


def _class(items: Any) -> frozenset[int]:
    found: set[int] = set()
    negated = False
    for op, arguments in items:
        if op is words.NEGATE:
            negated = True
        elif op is words.LITERAL:
            found.add(arguments)
        elif op is words.RANGE:
            found |= set(range(arguments[0], min(arguments[1], 127) + 1))
        elif op is words.CATEGORY:
            found |= {code for code in ANYTHING if re.match(_CATEGORIES[arguments], chr(code))}
    return ANYTHING - found if negated else frozenset(found)
