"""Compressors that images are packed with, by name: opened, and packed again bit for bit.

A name says everything the result depends on: `zlib 9 15 8` (level, window, memory), `xz 6 131072` (preset,
dictionary), `zstd 15 1.5.4` (level, version: its output changes between releases), `lz4 1.9.4`. What opens
has no parameters: `zlib`, `deflate` (without zlib's header), `xz`, `lzma`, `zstd`, `lz4`, `zstds` and `lz4l`
(streams, as the programs write them for kernels), `btf` (a kernel's types, `firmware.btf`). zlib and LZMA are
Python's own, zstd and LZ4 the system's libraries' (`firmware.libraries`), `btf` the C core's, where they are:
`available` says so, and who lacks one takes the full image.
`xz|btf 800 90000`: opened by the first, and in what it holds 90,000 bytes from 800 on by the second; packed
the other way round.
Whether a name reproduces a block is found by trying (`candidates`); nothing here is believed, the image's
digest decides.
"""

import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from skylift.firmware import libraries, native
from skylift.firmware.native import DeltaError

MOST_AT_ONCE = 32 << 20  # bytes of a block that is opened or packed in one piece (zstd, LZ4)
_PIECE = 1 << 20
_XZ_CRC32 = b"\x00\x01"  # stream flags: check by CRC-32


class Packer(Protocol):
    """Takes a block's content in pieces, gives what it packs to in pieces."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Whole:
    """A packer that needs the whole block."""

    def __init__(self, pack: Callable[[bytes], bytes]) -> None:
        self._pack = pack
        self._held = bytearray()

    def compress(self, data: bytes, /) -> bytes:
        if len(self._held) + len(data) > MOST_AT_ONCE:
            raise DeltaError(f"a block of more than {MOST_AT_ONCE} bytes cannot be packed at once")
        self._held += data
        return b""

    def flush(self) -> bytes:
        try:
            return self._pack(bytes(self._held))
        except (lzma.LZMAError, ValueError, MemoryError) as e:
            raise DeltaError(f"a block cannot be packed: {e}") from e


class _Within:
    """One range of what passes by, turned in place."""

    def __init__(self, deed: str, start: int, size: int) -> None:
        self._deed, self._start, self._end, self._at = deed, start, start + size, 0
        self._held = bytearray()

    def turn(self, piece: bytes) -> bytes:
        """What can be passed on: a piece less what is still held back, or more."""
        begin, end = (max(place - self._at, 0) for place in (self._start, self._end))
        self._at += len(piece)
        self._held += piece[begin:end]
        turned = b""
        if self._held and self._at >= self._end:
            turned = native.turned(self._deed, bytes(self._held))
            self._held.clear()
        return piece[:begin] + turned + piece[end:]


class _Chained:
    """A packer behind another codec that works in place."""

    def __init__(self, within: _Within, packer: Packer) -> None:
        self._within, self._packer = within, packer

    def compress(self, data: bytes, /) -> bytes:
        return self._packer.compress(self._within.turn(data))

    def flush(self) -> bytes:
        return self._packer.flush()


# --- opening ---------------------------------------------------------------------------------------------

_STREAMS: dict[str, Callable[[], Any]] = {
    "zlib": zlib.decompressobj,
    "deflate": lambda: zlib.decompressobj(-15),
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=256 << 20),
}
_AT_ONCE: dict[str, Callable[[bytes, int], bytes]] = {
    "zstd": libraries.zstd_open,
    "lz4": libraries.lz4_open,
    "btf": lambda packed, _size: native.turned("open", packed),
}
_FLOWS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "zstds": libraries.zstd_opened,
    "lz4l": libraries.legacy_opened,
}


def opened(name: str, packed: bytes, size: int) -> Iterator[bytes]:
    """The `size` bytes a block holds, in pieces. Raises `DeltaError` when it holds others, or more or
    fewer."""
    done = 0
    outer, _, inner = name.partition("|")
    within = _Within("open", *_range(inner)) if inner else None
    try:
        for piece in _opened(outer, packed, size):
            if within is not None:
                piece = within.turn(piece)
            done += len(piece)
            yield piece
    except (zlib.error, lzma.LZMAError, EOFError, MemoryError) as e:
        raise DeltaError(f"a {name} block is damaged: {e}") from e
    if done != size:
        raise DeltaError(f"a {name} block holds {done} bytes, not {size}")


def _opened(name: str, packed: bytes, size: int) -> Iterator[bytes]:
    if name in _AT_ONCE:
        if size > MOST_AT_ONCE:
            raise DeltaError(f"a {name} block of {size} bytes: at most {MOST_AT_ONCE} are opened at once")
        yield _AT_ONCE[name](packed, size)
        return
    if name in _FLOWS:
        yield from _at_most(_FLOWS[name](packed), size)
        return
    stream, rest, left = _STREAMS[name](), packed, size
    while left and not stream.eof:
        piece = stream.decompress(rest, min(left, _PIECE))
        rest = stream.unconsumed_tail if hasattr(stream, "unconsumed_tail") else b""
        if not piece and (stream.eof or not rest):
            break
        left -= len(piece)
        yield piece


def _at_most(pieces: Iterator[bytes], left: int) -> Iterator[bytes]:
    """They, and no more than one piece beyond what is due."""
    for piece in pieces:
        yield piece
        left -= len(piece)
        if left < 0:
            return


def opened_at_most(name: str, packed: bytes, most: int) -> bytes:
    """What a block holds, when that is at most `most` bytes. Raises `DeltaError`."""
    if name in _AT_ONCE:
        return _AT_ONCE[name](packed, most)
    try:
        held: bytes = _STREAMS[name]().decompress(packed, most + 1)
    except (zlib.error, lzma.LZMAError, EOFError) as e:
        raise DeltaError(f"a {name} block is damaged: {e}") from e
    if len(held) > most:
        raise DeltaError(f"a {name} block holds more than {most} bytes")
    return held


def stream_end(name: str, image: memoryview, most: int) -> tuple[int, int] | None:
    """(bytes taken, bytes held) of the stream that begins here; None when none does, or it holds more than
    `most`."""
    stream, at, held = _STREAMS[name](), 0, 0
    try:
        rest = b""
        while not stream.eof:
            if not rest:
                if at >= len(image):
                    return None
                rest = bytes(image[at : at + _PIECE])
                at += len(rest)
            held += len(stream.decompress(rest, _PIECE))
            rest = stream.unconsumed_tail if hasattr(stream, "unconsumed_tail") else b""
            if hasattr(stream, "needs_input") and not stream.needs_input:
                while not stream.eof and not stream.needs_input:
                    held += len(stream.decompress(b"", _PIECE))
                    if held > most:
                        return None
            if held > most:
                return None
    except (zlib.error, lzma.LZMAError, EOFError):
        return None
    return at - len(stream.unused_data), held


# --- packing ---------------------------------------------------------------------------------------------


def _xz_block(data: bytes, preset: int, dictionary: int, *before: int) -> bytes:
    """One .xz stream as liblzma's one-call encoder writes it: sizes in the block's header, check by
    CRC-32."""
    chain = [{"id": each} for each in before] + [
        {"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary}
    ]
    body = lzma.compress(data, lzma.FORMAT_RAW, filters=chain)
    flags = b"".join(bytes([each, 0]) for each in before) + bytes([0x21, 1, _dict_code(dictionary)])
    head = bytes([0xC0 | len(before)]) + _vli(len(body)) + _vli(len(data)) + flags
    head += bytes(-(len(head) + 1) % 4)
    head = bytes([(len(head) + 1) // 4]) + head
    head += struct.pack("<I", zlib.crc32(head))
    block = head + body
    unpadded = len(block) + 4
    block += bytes(-len(block) % 4) + struct.pack("<I", zlib.crc32(data))
    index = b"\0\x01" + _vli(unpadded) + _vli(len(data))
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    tail = struct.pack("<I", len(index) // 4 - 1) + _XZ_CRC32
    start = b"\xfd7zXZ\0" + _XZ_CRC32 + struct.pack("<I", zlib.crc32(_XZ_CRC32))
    return start + block + index + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ"


def _dict_code(size: int) -> int:
    for code in range(40):
        if ((2 | code & 1) << (code // 2 + 11)) >= size:
            return code
    return 40


def _vli(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _xz_stream(preset: int, dictionary: int, *before: int) -> Packer:
    """As `xz --check=crc32` writes it: the kernel's own."""
    chain = [{"id": each} for each in before] + [
        {"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": dictionary}
    ]
    return lzma.LZMACompressor(lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=chain)


def _alone(preset: int) -> Packer:
    return lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=preset)


_PACKERS: dict[str, Callable[..., Packer]] = {
    "zlib": lambda level, window, memory: zlib.compressobj(level, zlib.DEFLATED, window, memory),
    "deflate": lambda level, window, memory: zlib.compressobj(level, zlib.DEFLATED, -window, memory),
    "xz": lambda *how: _Whole(lambda data: _xz_block(data, *how)),
    "xzs": _xz_stream,
    "lzma": _alone,
    "zstd": lambda level: _Whole(lambda data: libraries.zstd_pack(data, level)),
    "lz4": lambda: _Whole(lambda data: libraries.lz4_pack(data, 0)),
    "lz4hc": lambda level: _Whole(lambda data: libraries.lz4_pack(data, level)),
    "zstds": lambda level, workers: libraries.ZstdStream(min(level, 22), min(workers, 1)),
    "lz4l": libraries.LegacyStream,
    "btf": lambda: _Whole(lambda data: native.turned("close", data)),
}
_LIMITS = {"zlib": 3, "deflate": 3, "xz": 4, "xzs": 4, "lzma": 1}
# Packers that change their output between releases: the version is the last word of their names.
_VERSIONED = {
    "zstd": libraries.zstd_version,
    "zstds": libraries.zstd_version,
    "lz4": libraries.lz4_version,
    "lz4hc": libraries.lz4_version,
    "lz4l": libraries.lz4_version,
}
IN_PLACE = ("btf",)  # kinds that hold as many bytes as they take, where they lie


def packer(name: str) -> Packer:
    """Raises `DeltaError` for a name that nobody knows here."""
    if not available(name):
        raise DeltaError(f"the delta packs with {name!r}, which is not here")
    outer, _, inner = name.partition("|")
    if inner:
        return _Chained(_Within("close", *_range(inner)), packer(outer))
    kind, *how = _parts(name)
    try:
        return _PACKERS[kind](*map(int, how))
    except (ValueError, TypeError, lzma.LZMAError, zlib.error) as e:
        raise DeltaError(f"{name!r} is no way to pack: {e}") from e


def available(name: str) -> bool:
    """Whether a name can be opened or packed here, to the bit as far as versions tell."""
    outer, _, inner = name.partition("|")
    if inner:
        return _range(inner) != NOWHERE and native.available() and available(outer)
    kind, *how = name.split(" ")
    if kind in _STREAMS and not how:
        return True
    if kind == "btf":
        return not how and native.available()
    if kind in _VERSIONED:
        version = _VERSIONED[kind]()
        return version is not None and (not how or how[-1] == version)
    return kind in _LIMITS and len(how) <= _LIMITS[kind] and all(part.isdecimal() for part in how)


def _parts(name: str) -> list[str]:
    """Without the version, which only `available` looks at."""
    parts = name.split(" ")
    return parts[:-1] if parts[0] in _VERSIONED else parts


def _range(inner: str) -> tuple[int, int]:
    """Where, and how many bytes; `NOWHERE` for what is no codec that works in place."""
    kind, *how = inner.split(" ")
    if kind in IN_PLACE and len(how) == 2 and all(part.isdecimal() and len(part) < 12 for part in how):
        return int(how[0]), int(how[1])
    return NOWHERE


NOWHERE = (0, 0)


def memory(name: str) -> int:
    """About what packing by this name takes, in bytes: reckoned from its parameters. zstd's blocks are a
    squashfs's, of 1 MiB at most, which bounds its tables; for a stream they are as the level has them."""
    outer, _, inner = name.partition("|")
    if inner:
        return memory(outer) + (10 << 20) + 3 * _range(inner)[1]
    kind, *how = name.split(" ")
    if kind in ("xz", "xzs") and len(how) > 1:
        return int(how[1]) * 11 + (8 << 20)
    if kind == "zstds" and how[0].isdecimal():
        return _ZSTD_MEMORY.get(int(how[0]), _ZSTD_MEMORY[22] if int(how[0]) > 19 else 256 << 20)
    return {"lzma": 96 << 20, "zstd": 12 << 20, "lz4l": 24 << 20, "btf": 48 << 20}.get(kind, 2 << 20)


def opening(name: str, size: int) -> int:
    """About what opening a block takes that holds `size` bytes: a stream of zstd's has a window as large."""
    return min(size, _MOST_WINDOW if name.startswith("zstds") else MOST_AT_ONCE)


_MOST_WINDOW = 128 << 20
_ZSTD_MEMORY = {20: 384 << 20, 21: 640 << 20, 22: 1088 << 20}


def candidates(kind: str, size: int, block: int, head: bytes) -> list[str]:
    """The names that may have made a block of this kind, which begins with `head` and holds `size` bytes; the
    likeliest first."""
    if kind in ("zlib", "deflate"):
        return [
            f"{kind} {level} 15 {memory}"
            for level, memory in ((9, 8), (6, 8), (9, 9), (6, 9), (1, 8), (5, 8))
        ]
    if kind == "xz":
        near = [f"xz 6 {dictionary}" for dictionary in dict.fromkeys((block, 8192))]
        arch = [f"xzs 6 {dictionary} {each}" for dictionary in _DICTIONARIES for each in (4, 7)]
        plain = [f"xzs 6 {dictionary}" for dictionary in _DICTIONARIES]
        return [*arch, *plain] if size > 1 << 20 else near
    if kind in _VERSIONED:
        version = _VERSIONED[kind]()
        return [f"{how} {version}" for how in _versioned(kind, head)] if version else []
    return {"lzma": ["lzma 9", "lzma 6"], "btf": ["btf"]}.get(kind, [])


def _versioned(kind: str, head: bytes) -> list[str]:
    if kind == "zstds":
        levels = _LEVELS.get(libraries.zstd_window(head), ())
        return [f"zstds {level} {workers}" for level in levels for workers in (1, 0)]
    return {
        "zstd": ["zstd 15", "zstd 19", "zstd 22", "zstd 3"],
        "lz4": ["lz4", "lz4hc 12"],
        "lz4l": ["lz4l 9", "lz4l 12", "lz4l 0"],
    }.get(kind, [])


_LEVELS = {27: (22,), 26: (21,), 25: (20,), 23: (19, 18, 17)}  # of zstd's, by bits of window, for streams
_DICTIONARIES = (32 << 20, 8 << 20, 128 << 20)
