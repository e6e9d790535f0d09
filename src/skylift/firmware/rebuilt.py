"""An image that is being rebuilt: what is handed on of it, and how much of it stays at hand.

For the decoder in Python.
"""

import zlib
from collections.abc import Callable

from skylift.firmware.skd2 import PAGE

TAIL = 128  # bytes that stay at hand


def u32(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


class Rebuilt:
    """`at`: how many bytes are made. `out`: the last of them. `history`: in a large profile more of them."""

    def __init__(self, write: Callable[[bytes], None], history: int) -> None:
        self._write = write
        self.at = self.crc = 0
        self.out = bytearray(TAIL)  # and what is not handed on yet
        self.history = bytearray(history)

    def put(self, byte: int) -> None:
        if self.history:
            self.history[self.at & (len(self.history) - 1)] = byte
        self.at += 1
        if len(self.out) >= TAIL + PAGE:
            self.flush()
        self.out.append(byte)

    def flush(self) -> None:
        piece = bytes(self.out[TAIL:])
        if piece:
            self.crc = zlib.crc32(piece, self.crc)
            self._write(piece)
        del self.out[: len(self.out) - TAIL]

    def byte(self, at: int) -> int | None:
        """A byte that was made, if it is remembered."""
        if at >= self.at or self.at - at >= len(self.history):
            return None
        return self.history[at & (len(self.history) - 1)]
