"""What files take from the environment, so that secrets need not stand in them.

decK writes `${{ env "DECK_NAME" }}`, Traefik's file provider `{{ env "NAME" }}`: both are filled, in files of
any dialect, before the text is taken apart. A variable that is not set is an error, never an empty secret.
Only files are filled: a document behind a URL is somebody else's, and does not get to see this machine's
environment.
"""

import re
from collections.abc import Mapping

from skylift.gateway.errors import Problem, Refused

_HOLE = re.compile(
    r"\$?\{\{-?\s*env\s+(?:\"(\w+)\"|`(\w+)`|'(\w+)')(?:\s*\|\s*to(?:Int|Bool|Float))?\s*-?\}\}"
)
_BREAKS = re.compile(r"[\x00-\x1f\x7f\"'\\]")


def filled(text: str, environ: Mapping[str, str], file: str) -> tuple[str, int]:
    """The text with its holes filled, and how many there were. Raises Refused for every variable that is not
    set, and for one whose value could be read as more than a value."""
    problems: list[Problem] = []
    holes = list(_HOLE.finditer(text))
    for hole in holes:
        name = hole[1] or hole[2] or hole[3]
        line = text.count("\n", 0, hole.start()) + 1
        if name not in environ:
            rule = f"the environment has no {name}"
            problems.append(Problem(file, "", rule, code="unset_variable", line=line))
        elif _BREAKS.search(environ[name]):
            rule = f"the variable {name} must have no quotes, backslashes or control characters"
            problems.append(Problem(file, "", rule, code="unusable_variable", line=line))
    if problems:
        raise Refused(problems)
    return _HOLE.sub(lambda hole: environ[hole[1] or hole[2] or hole[3]], text), len(holes)


def has_holes(text: str) -> bool:
    return bool(_HOLE.search(text))
