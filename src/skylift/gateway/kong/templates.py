"""Kong's `$(...)`: the part of its template language that is data, and the user's own `$(uuid)`.

Kong evaluates Lua there. Read here: `headers.x`, `headers["x"]`, `query_params.q`, `uri_captures.name`,
`uri_captures[1]`, each with `or 'literal'`, and `uuid`. Anything else is code, and refused.
"""

import re
from dataclasses import dataclass

from skylift.gateway.template import Source, Template, Var

_HOLE = re.compile(r"\$\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_ACCESS = re.compile(
    r"""(?P<what>headers|query_params|uri_captures)
        (?:\.(?P<word>[A-Za-z_]\w*)|\[(?:"(?P<double>[^"\]]+)"|'(?P<single>[^'\]]+)'|(?P<number>\d+))\])
        (?:\s+or\s+(?:"(?P<default>[^"]*)"|'(?P<other>[^']*)'))?""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class NotData:
    """An expression that would have to be run."""

    expression: str


def parse(text: str) -> Template | NotData:
    """The template a value is."""
    found: list[str | Var] = []
    end = 0
    for hole in _HOLE.finditer(text):
        if hole.start() > end:
            found.append(text[end : hole.start()])
        var = _var(hole[1].strip())
        if var is None:
            return NotData(hole[1].strip())
        found.append(var)
        end = hole.end()
    if end < len(text):
        found.append(text[end:])
    return tuple(found)


def _var(expression: str) -> Var | None:
    if expression == "uuid":
        return Var(Source.UUID)
    found = _ACCESS.fullmatch(expression)
    if found is None:
        return None
    name = found["word"] or found["double"] or found["single"] or found["number"]
    source = Source(found["what"])
    if source is Source.HEADER:
        name = name.replace("_", "-")  # Lua's names have no dashes
    return Var(source, name, found["default"] or found["other"] or "")
