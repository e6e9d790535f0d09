"""What is wrong with a configuration: every finding at once, each with its place and the nearest right word.

A reader collects `Problem`s while it goes through a file and raises one `Refused` at the end, so that a file
with five mistakes is corrected in one round. The sentence of `Refused` is the first problem; `problems` has
them all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from skylift.core.errors import Rejected

SHOWN = 60  # characters of a value in a sentence: enough to find it, too few to leak a key


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `path`: where in the file, as people write it: `services[0].routes[1].paths[0]`."""

    file: str
    path: str
    rule: str
    value: object = None
    suggestion: str | None = None
    code: str = "invalid_value"
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        shown = "" if self.value is None else f" is {_short(self.value)}"
        hint = f" (did you mean {self.suggestion!r}?)" if self.suggestion else ""
        what = f"{self.path}{shown}: " if self.path else ""
        return f"{place}: {what}{self.rule}{hint}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


class Refused(Rejected):
    """A configuration that cannot be used; the running one stays."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(first.code, f"{first}{more}", field=first.path, value=first.value, rule=first.rule)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    by_lower = {name.lower().replace("-", "_"): name for name in known}
    found = get_close_matches(word.lower().replace("-", "_"), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None
