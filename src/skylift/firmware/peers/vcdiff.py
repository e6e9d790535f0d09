"""VCDIFF (RFC 3284), as xdelta3 and others write it: windows of additions, copies and runs.

Read: what the RFC has, and of xdelta3's own the checksums, the application's header and LZMA's second
compression. Written: the RFC's and nothing else, so that every reader of it can apply the patch.
"""

import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from skylift.firmware.native import DeltaError
from skylift.firmware.peers import stream
from skylift.firmware.peers.stream import Run

MAGIC = b"\xd6\xc3\xc4"
_SECOND, _TABLE, _APPLICATION = 1, 2, 4  # of the header
_SOURCE, _TARGET, _ADLER = 1, 2, 4  # of a window
_LZMA = 2  # xdelta3's number for it
_NEAR, _SAME = 4, 3
_WINDOW = 4 << 20
_MOST_WINDOW = 64 << 20
_LEAST_COPY = 8
_ADD, _RUN, _COPY = "add", "run", "copy"

Half = tuple[str, int, int]  # instruction, size (0: told), mode of a copy's address


def _code_table() -> list[tuple[Half, ...]]:
    """The RFC's default, section 5.6: one or two instructions for each byte."""
    rows: list[tuple[Half, ...]] = [((_RUN, 0, 0),)]
    rows += [((_ADD, size, 0),) for size in range(18)]
    rows += [((_COPY, size, mode),) for mode in range(9) for size in (0, *range(4, 19))]
    pairs = [(mode, (4, 5, 6)) for mode in range(6)] + [(mode, (4,)) for mode in range(6, 9)]
    rows += [
        ((_ADD, add, 0), (_COPY, copy, mode))
        for mode, sizes in pairs
        for add in range(1, 5)
        for copy in sizes
    ]
    rows += [((_COPY, 4, mode), (_ADD, 1, 0)) for mode in range(9)]
    return rows


_CODES = _code_table()
_SINGLE = {row[0]: code for code, row in enumerate(_CODES) if len(row) == 1}


class _Addresses:
    """Recent addresses, that the next one may be told by."""

    def __init__(self) -> None:
        self._near, self._same, self._next = [0] * _NEAR, [0] * (_SAME * 256), 0

    def seen(self, address: int) -> int:
        self._near[self._next] = address
        self._next = (self._next + 1) % _NEAR
        self._same[address % (_SAME * 256)] = address
        return address

    def read(self, section: "_Section", here: int, mode: int) -> int:
        if mode >= 2 + _NEAR:
            return self.seen(self._same[(mode - 2 - _NEAR) * 256 + section.byte()])
        told = section.number()
        return self.seen((told, here - told)[mode] if mode < 2 else self._near[mode - 2] + told)

    def write(self, address: int, here: int) -> tuple[int, bytes]:
        """(mode, what tells it): the shortest."""
        place = address % (_SAME * 256)
        ways = [(0, _number(address)), (1, _number(here - address))]
        ways += [(2 + k, _number(address - near)) for k, near in enumerate(self._near) if address >= near]
        if self._same[place] == address:
            ways.append((2 + _NEAR + place // 256, bytes([place % 256])))
        self.seen(address)
        return min(ways, key=lambda way: len(way[1]))


def _number(value: int) -> bytes:
    """Seven bits a byte, the highest first; the top bit says that more follow."""
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


class _Section:
    """Bytes read from front to back."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at = body, 0

    def take(self, size: int) -> bytes:
        if size > len(self._body) - self._at:
            raise DeltaError("the patch ends before the image does")
        self._at += size
        return self._body[self._at - size : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        value = 0
        for _ in range(10):
            byte = self.byte()
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise DeltaError("the patch is damaged: a number without an end")

    @property
    def left(self) -> int:
        return len(self._body) - self._at


# --- reading ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Second:
    """A second compression: one stream for each kind of section, that goes on from window to window."""

    streams: list[lzma.LZMADecompressor] = field(
        default_factory=lambda: [lzma.LZMADecompressor(memlimit=256 << 20) for _ in range(3)]
    )

    def opened(self, kind: int, packed: bytes) -> bytes:
        section = _Section(packed)
        size = section.number()
        if size > _MOST_WINDOW:
            raise DeltaError(f"the patch has a section of {size} bytes, at most {_MOST_WINDOW} are read")
        try:
            body = self.streams[kind].decompress(section.take(section.left), size)
        except (lzma.LZMAError, EOFError) as e:
            raise DeltaError(f"the patch is damaged: {e}") from e
        if len(body) != size:
            raise DeltaError("the patch is damaged: a section of another size than it says")
        return body


def apply(old: bytes, patch: bytes) -> bytes:
    """Raises `DeltaError`."""
    out = bytearray()
    for _ in _windows(old, patch, out, []):
        pass
    return bytes(out)


def told(patch: bytes, old: bytes) -> tuple[int, list[Run]]:
    """(bytes of the image, which runs of it the patch takes from the old one)."""
    out, found = bytearray(), list[Run]()
    for _ in _windows(old, patch, out, found):
        pass
    return len(out), found


def _windows(old: bytes, patch: bytes, out: bytearray, found: list[Run]) -> Iterator[None]:
    """Window by window into `out`; copies from the old image are noted in `found`."""
    body = _Section(patch)
    if body.take(min(3, len(patch))) != MAGIC:
        raise DeltaError("this is no VCDIFF patch")
    body.byte()  # the version
    flags = body.byte()
    second = _Second() if flags & _SECOND else None
    if second is not None and (kind := body.byte()) != _LZMA:
        raise DeltaError(f"the patch is compressed a second time, by number {kind}, which is not read here")
    if flags & _TABLE:
        raise DeltaError("the patch brings a table of codes of its own, which is not read here")
    if flags & _APPLICATION:
        body.take(body.number())
    while body.left:
        _window(old, body, second, out, found)
        yield


def _window(old: bytes, body: _Section, second: _Second | None, out: bytearray, found: list[Run]) -> None:
    flags = body.byte()
    if flags & ~(_SOURCE | _TARGET | _ADLER) or (flags & _SOURCE and flags & _TARGET):
        raise DeltaError("the patch is damaged: a window of a kind that nobody knows")
    size = start = 0
    if flags & (_SOURCE | _TARGET):
        size, start = body.number(), body.number()
    given: bytes | bytearray = out if flags & _TARGET else old
    if start + size > len(given):
        raise DeltaError("the patch was made from another image than the one here: it reads beyond its end")
    window = _Section(body.take(body.number()))
    length, packed = window.number(), window.byte()
    if length > _MOST_WINDOW:
        raise DeltaError(f"the patch has a window of {length} bytes, at most {_MOST_WINDOW} are made")
    sizes = [window.number() for _ in range(3)]
    check = window.take(4) if flags & _ADLER else None
    parts = [window.take(each) for each in sizes]
    for kind in range(3):
        if packed >> kind & 1:
            if second is None:
                raise DeltaError("the patch is damaged: a section is compressed by nothing")
            parts[kind] = second.opened(kind, parts[kind])
    base = start if flags & _SOURCE else None
    made = _made(bytes(given[start : start + size]), length, parts, len(out), base, found)
    if check is not None and zlib.adler32(made) != int.from_bytes(check):
        raise DeltaError("a window of the rebuilt image is not the one the patch promises")
    out += made


def _made(
    source: bytes, length: int, parts: list[bytes], at: int, base: int | None, found: list[Run]
) -> bytearray:
    """One window, by its instructions."""
    data, instructions, addresses = (_Section(part) for part in parts)
    made, recent, reach = bytearray(), _Addresses(), len(source)
    while len(made) < length:
        for kind, size, mode in _CODES[instructions.byte()]:
            size = size or instructions.number()
            if size > length - len(made):
                raise DeltaError("the patch makes more bytes than its window has")
            if kind is _ADD:
                made += data.take(size)
            elif kind is _RUN:
                made += data.take(1) * size
            else:
                place = recent.read(addresses, reach + len(made), mode)
                if not 0 <= place < reach + len(made):
                    raise DeltaError("the patch copies what is not there yet")
                if base is not None and place + size <= reach:
                    found.append((at + len(made), base + place, size))
                _copy(source, made, place, size)
    return made


def _copy(source: bytes, made: bytearray, place: int, size: int) -> None:
    """From the source, or from what was made: that may be bytes that this very copy makes."""
    inside = source[place : place + size]
    made += inside
    size -= len(inside)
    back = len(made) - max(place - len(source), 0) if not inside else len(made)
    while size > 0:
        piece = made[len(made) - back : len(made) - back + size] if back else b""
        if not piece:
            raise DeltaError("the patch copies what is not there yet")
        made += piece
        size -= len(piece)


# --- writing ---------------------------------------------------------------------------------------------


def make(old: bytes, new: bytes) -> bytes:
    copies = list(_copies(old, new, stream.runs(old, new)))
    out = bytearray(MAGIC + b"\0\0")
    k = 0
    for start in range(0, len(new), _WINDOW):
        end = min(start + _WINDOW, len(new))
        inside: list[Run] = []
        while k < len(copies) and copies[k][0] < end:
            at, source, size = copies[k]
            here = min(size, end - at)
            inside.append((at, source, here))
            if here < size:
                copies[k] = (end, source + here, size - here)
                break
            k += 1
        out += _written(new, start, end, inside)
    return bytes(out)


def _copies(old: bytes, new: bytes, found: list[Run]) -> Iterator[Run]:
    """The stretches of each run that agree byte for byte, and are worth an instruction."""
    for at, start, size in found:
        unlike = stream.subtracted(new[at : at + size], old[start : start + size])
        done = 0
        while done < size:
            rest = unlike[done : done + _WINDOW]
            same = len(rest) - len(rest.lstrip(b"\0"))
            if same >= _LEAST_COPY:
                yield at + done, start + done, same
            done += same
            zeros = unlike.find(bytes(_LEAST_COPY), done)
            if same < len(rest):
                done = size if zeros < 0 else zeros


def _written(new: bytes, start: int, end: int, copies: list[Run]) -> bytes:
    """One window."""
    low = min((source for _, source, _ in copies), default=0)
    reach = max((source + size for _, source, size in copies), default=0) - low
    data, instructions, addresses = bytearray(), bytearray(), bytearray()
    recent, at = _Addresses(), start

    def tell(kind: str, size: int, mode: int = 0) -> None:
        code = _SINGLE.get((kind, size, mode))
        instructions.extend([_SINGLE[kind, 0, mode], *_number(size)] if code is None or not size else [code])

    for place, source, size in [*copies, (end, 0, 0)]:
        if place > at:
            fresh = new[at:place]
            plain = fresh.strip(fresh[:1])
            if not plain:
                tell(_RUN, len(fresh))
                data += fresh[:1]
            else:
                tell(_ADD, len(fresh))
                data += fresh
        if size:
            mode, words = recent.write(source - low, reach + place - start)
            tell(_COPY, size, mode)
            addresses += words
        at = place + size
    body = _number(end - start) + b"\0"
    body += b"".join(_number(len(part)) for part in (data, instructions, addresses))
    body += data + instructions + addresses
    segment = bytes([_SOURCE]) + _number(reach) + _number(low) if copies else b"\0"
    return segment + _number(len(body)) + body
