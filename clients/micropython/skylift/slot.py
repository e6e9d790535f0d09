"""Writing the other slot strictly forward, a sector at a time, and the digest of what stands in a slot."""

import hashlib
from binascii import hexlify

from skylift.port import SECTOR


class SlotWriter:
    """`taken` bytes came, of them `safe` stand in flash. Begins at a sector that an earlier life reached."""

    def __init__(self, port, at):
        self._port = port
        self._page, self._have = bytearray(SECTOR), 0
        self.safe = self.taken = at

    def add(self, body):
        at = 0
        while at < len(body):
            part = min(SECTOR - self._have, len(body) - at)
            self._page[self._have : self._have + part] = body[at : at + part]
            self._have += part
            self.taken += part
            at += part
            if self._have == SECTOR:
                self._flush()

    def finish(self):
        """The rest of the last sector is 0xFF."""
        if self._have:
            self._page[self._have :] = b"\xff" * (SECTOR - self._have)
            self._flush()

    def _flush(self):
        self._port.write(self.safe, self._page)
        self.safe += SECTOR
        self._have = 0


def digest(port, slot, length):
    """SHA-256 of a slot's first bytes in hexadecimal, as a generator: a sector between two yields."""
    hashed, page, at = hashlib.sha256(), bytearray(SECTOR), 0
    while at < length:
        port.read(slot, at, page)
        hashed.update(memoryview(page)[: min(SECTOR, length - at)])
        at += SECTOR
        yield 0
    return hexlify(hashed.digest()).decode()


def image_length(port, slot):
    """How long the Espressif image is that stands in a slot, by its own segments; 0 where none does."""
    head, at, most = bytearray(24), 24, port.size(slot)
    port.read(slot, 0, head)
    if head[0] != 0xE9 or not 0 < head[1] <= 16:
        return 0
    for _ in range(head[1]):
        segment = bytearray(8)
        port.read(slot, at, segment)
        at += 8 + int.from_bytes(segment[4:], "little")
        if at + 8 > most:
            return 0
    at = (at | 15) + 1 + (32 if head[23] == 1 else 0)
    return at if at <= most else 0


def same_chip(port, head):
    """An Espressif image goes where an Espressif image of the same chip runs."""
    own = bytearray(16)
    port.read(port.running, 0, own)
    return own[0] != 0xE9 or (head[:1] == b"\xe9" and head[12:14] == own[12:14])


def described_floor(port, slot):
    """The security version that a slot's image says it has, None where it says nothing."""
    head = bytearray(40)
    port.read(slot, 0, head)
    if head[0] != 0xE9 or head[32:36] != b"\x32\x54\xcd\xab":
        return None
    return int.from_bytes(head[36:], "little")
