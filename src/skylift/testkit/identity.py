"""Who the devices of a fleet are: names, tokens and behaviours, all from one seed, with no list kept."""

import hmac
from dataclasses import dataclass

from skylift.testkit.behaviours import DEFAULT, Behaviour

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Names, tokens and behaviours of devices, all made from the seed: no list is kept."""

    seed: int
    count: int
    behaviours: tuple[Behaviour, ...] = DEFAULT
    prefix: str = "sim"

    def name(self, number: int) -> str:
        return f"{self.prefix}-{number:07}"

    def number(self, name: str) -> int | None:
        """None for a device that is not of this fleet."""
        prefix, _, digits = name.rpartition("-")
        if prefix != self.prefix or not digits.isdecimal() or int(digits) >= self.count:
            return None
        return int(digits)

    def token(self, number: int) -> str:
        digest = hmac.digest(b"skylift %d" % self.seed, b"%s %d" % (self.prefix.encode(), number), "sha256")
        return "dev_" + digest.hex()

    def drawn(self, number: int, what: int) -> float:
        """A number in [0, 1), always the same for this device and this purpose (splitmix64's finaliser)."""
        x = (self.seed * 0x9E3779B97F4A7C15 + number * 0xD1342543DE82EF95 + what * 0xA0761D6478BD642F) & _MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((x ^ (x >> 31)) >> 11) / (1 << 53)

    def behaviour(self, number: int) -> Behaviour:
        at, drawn = 0.0, self.drawn(number, 0) * 100
        for behaviour in self.behaviours:
            at += behaviour.share
            if drawn < at:
                return behaviour
        return self.behaviours[-1]

    def named(self, *names: str) -> list[str]:
        """The devices whose behaviour has one of these names."""
        return [self.name(n) for n in range(self.count) if self.behaviour(n).name in names]
