"""What the writers of dialects share: the list of losses, and conditions as alternatives of tests."""

from dataclasses import dataclass, field
from itertools import product

from skylift.gateway.conditions import All, AnyOf, Condition, Not, Test

MAX_ALTERNATIVES = 64


@dataclass(slots=True)
class Losses:
    """Sentences, each once, in the order they came up."""

    found: dict[str, None] = field(default_factory=dict)

    def say(self, where: str, what: str) -> None:
        self.found[f"{where}: {what}"] = None

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(self.found)


def alternatives(condition: Condition) -> list[tuple[Test, ...]] | None:
    """The condition as alternatives, each a list of tests that all must hold; None where a Not stands in it,
    or there would be too many."""
    match condition:
        case Test():
            return [(condition,)]
        case AnyOf(of):
            found: list[tuple[Test, ...]] = []
            for each in of:
                inner = alternatives(each)
                if inner is None:
                    return None
                found += inner
            return found if len(found) <= MAX_ALTERNATIVES else None
        case All(of):
            parts = [alternatives(each) for each in of]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                return None
            made = [tuple(test for tests in choice for test in tests) for choice in product(*known)]
            return made if len(made) <= MAX_ALTERNATIVES else None
        case Not():
            return None
