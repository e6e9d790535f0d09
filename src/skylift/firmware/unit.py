"""A compressed piece of an image."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """`length` bytes at `at` that hold `size` bytes, packed by a codec of this kind (`firmware.codecs`)."""

    at: int
    length: int
    size: int
    kind: str

    @property
    def end(self) -> int:
        return self.at + self.length
