"""heatshrink, a compressor for devices of a few kilobytes: bits, the highest first.

1 and eight bits: a byte. 0, a distance less one, a length less one: bytes again from so far back; before the
beginning stand zeros. A byte in front tells the widths of both, as detools writes it.
"""

from collections.abc import Iterator

_WINDOW, _LENGTH = 8, 7  # bits: what detools takes unless it is told otherwise
_PIECE = 4096


def opened(body: bytes) -> Iterator[bytes]:
    """What it holds; after the last byte up to eight bits of filling may seem to hold one more."""
    if not body:
        return
    window, length = (body[0] >> 4) + 4, (body[0] & 15) + 3
    if window > 15 or length > window:
        raise ValueError("heatshrink: no window of that size")
    out, given = bytearray(1 << window), 1 << window  # bytes handed on
    bits = held = 0
    at = 1

    def more(count: int) -> bool:
        nonlocal bits, held, at
        while held < count and at < len(body):
            bits, held, at = (bits << 8 | body[at]) & 0xFFFFFFFF, held + 8, at + 1
        return held >= count

    def take(count: int) -> int:
        nonlocal held
        held -= count
        return bits >> held & ((1 << count) - 1)

    while more(1):
        if take(1):
            if not more(8):
                break
            out.append(take(8))
        else:
            if not more(window + length):
                break
            back, count = take(window) + 1, take(length) + 1
            for _ in range(count):
                out.append(out[-back])
        if len(out) - given >= _PIECE:
            yield bytes(out[given:])
            out = out[-(1 << window) :]
            given = len(out)
    yield bytes(out[given:])


def packed(body: bytes) -> bytes:
    """Greedy: the longest run that stands in the window, where it is shorter than its bytes."""
    out, bits, held = bytearray([(_WINDOW - 4) << 4 | (_LENGTH - 3)]), 0, 0
    at = 0
    while at < len(body):
        back, count = _longest(body, at)
        if count >= 2:
            bits = (bits << _WINDOW + 1 | back - 1) << _LENGTH | count - 1
            held += 1 + _WINDOW + _LENGTH
        else:
            count = 1
            bits, held = bits << 9 | 0x100 | body[at], held + 9
        at += count
        while held >= 8:
            held -= 8
            out.append(bits >> held & 0xFF)
        bits &= 0xFF
    if held:
        out.append(bits << 8 - held & 0xFF)
    return bytes(out)


def _longest(body: bytes, at: int) -> tuple[int, int]:
    """(distance, length) of the longest run before `at` that is at hand; length 0 when there is none."""
    most, best, back = min(1 << _LENGTH, len(body) - at), 0, 0
    low = max(0, at - (1 << _WINDOW))
    while best < most:
        found = body.rfind(body[at : at + best + 1], low, at + best)
        if found < 0:
            break
        best += 1
        while best < most and body[found + best] == body[at + best]:
            best += 1
        back = at - found
    return back, best
