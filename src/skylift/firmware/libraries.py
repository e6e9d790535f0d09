"""libzstd and liblz4, the system's, through ctypes: blocks at once, and streams, as kernels are packed.

Kernels are packed by programs: `zstd -22 --ultra` from a pipe, which works with one thread besides, ends in a
checksum and does not tell the size; `lz4 -l -9`, the legacy format, in blocks of 8 MiB. Both are written here
as the programs write them. Where a library is missing, everything raises `DeltaError`.
"""

import ctypes
import ctypes.util
import functools
import struct
import weakref
from collections.abc import Iterator
from typing import Any

from skylift.firmware.native import DeltaError

LEGACY = b"\x02\x21\x4c\x18"
ZSTD = b"\x28\xb5\x2f\xfd"
_LEGACY_BLOCK = 8 << 20
_LEVEL, _CHECKSUM, _WORKERS = 100, 201, 400  # parameters of libzstd's interface
_GO_ON, _END = 0, 2  # what its stream is told
_PIECE = 1 << 20


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer, ZSTD_outBuffer."""

    _fields_ = (("body", ctypes.c_char_p), ("size", ctypes.c_size_t), ("at", ctypes.c_size_t))


@functools.cache
def zstd() -> Any:
    """libzstd, or None."""
    library = _library("zstd", ("ZSTD_compressStream2", "ZSTD_decompressStream", "ZSTD_versionString"))
    if library is None:
        return None
    size, text, place, number = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int
    for name, takes, gives in (
        ("ZSTD_compress", (text, size, text, size, number), size),
        ("ZSTD_decompress", (text, size, text, size), size),
        ("ZSTD_compressBound", (size,), size),
        ("ZSTD_isError", (size,), number),
        ("ZSTD_versionString", (), text),
        ("ZSTD_findFrameCompressedSize", (text, size), size),
        ("ZSTD_createCCtx", (), place),
        ("ZSTD_freeCCtx", (place,), size),
        ("ZSTD_CCtx_setParameter", (place, number, number), size),
        ("ZSTD_compressStream2", (place, place, place, number), size),
        ("ZSTD_createDCtx", (), place),
        ("ZSTD_freeDCtx", (place,), size),
        ("ZSTD_decompressStream", (place, place, place), size),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = takes, gives
    return library


@functools.cache
def lz4() -> Any:
    """liblz4, or None."""
    library = _library("lz4", ("LZ4_compress_default", "LZ4_decompress_safe", "LZ4_versionString"))
    if library is None:
        return None
    library.LZ4_versionString.restype = ctypes.c_char_p
    return library


def _library(name: str, wanted: tuple[str, ...]) -> Any:
    path = ctypes.util.find_library(name)
    if path is None:
        return None
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None
    return library if all(hasattr(library, function) for function in wanted) else None


def zstd_version() -> str | None:
    return None if zstd() is None else zstd().ZSTD_versionString().decode()


def lz4_version() -> str | None:
    return None if lz4() is None else lz4().LZ4_versionString().decode()


def _needed(library: Any, name: str) -> Any:
    if library is None:
        raise DeltaError(f"needs lib{name}, which is not here")
    return library


# --- blocks ----------------------------------------------------------------------------------------------


def zstd_pack(data: bytes, level: int) -> bytes:
    library = _needed(zstd(), "zstd")
    room = library.ZSTD_compressBound(len(data))
    out = ctypes.create_string_buffer(room)
    done = _right(library.ZSTD_compress(out, room, data, len(data), level))
    return out.raw[:done]


def zstd_open(packed: bytes, size: int) -> bytes:
    library = _needed(zstd(), "zstd")
    out = ctypes.create_string_buffer(size + 1)
    done = _right(library.ZSTD_decompress(out, size, packed, len(packed)))
    return out.raw[:done]


def _right(result: int) -> int:
    if zstd().ZSTD_isError(result):
        raise DeltaError("a zstd block is damaged")
    return result


def lz4_pack(data: bytes, level: int) -> bytes:
    library = _needed(lz4(), "lz4")
    room = len(data) + len(data) // 255 + 16
    out = ctypes.create_string_buffer(room)
    if level:
        done = library.LZ4_compress_HC(data, out, len(data), room, level)
    else:
        done = library.LZ4_compress_default(data, out, len(data), room)
    return out.raw[: max(done, 0)]


def lz4_open(packed: bytes, size: int) -> bytes:
    out = ctypes.create_string_buffer(size + 1)
    done = _needed(lz4(), "lz4").LZ4_decompress_safe(packed, out, len(packed), size)
    if done < 0:
        raise DeltaError("an LZ4 block is damaged")
    return out.raw[:done]


# --- streams ---------------------------------------------------------------------------------------------


class ZstdStream:
    """As the program packs what comes through a pipe, with so many threads besides; a `codecs.Packer`."""

    def __init__(self, level: int, workers: int) -> None:
        library = _needed(zstd(), "zstd")
        self._context = library.ZSTD_createCCtx()
        self._freed = weakref.finalize(self, library.ZSTD_freeCCtx, self._context)
        for name, value in ((_LEVEL, level), (_CHECKSUM, 1), (_WORKERS, workers)):
            if library.ZSTD_isError(library.ZSTD_CCtx_setParameter(self._context, name, value)):
                raise DeltaError(f"libzstd {zstd_version()} cannot pack by level {level}, {workers} threads")

    def compress(self, data: bytes, /) -> bytes:
        return b"".join(self._moved(data, _GO_ON))

    def flush(self) -> bytes:
        last = b"".join(self._moved(b"", _END))
        self._freed()
        return last

    def _moved(self, data: bytes, deed: int) -> Iterator[bytes]:
        given, room = _Buffer(data, len(data), 0), ctypes.create_string_buffer(_PIECE)
        left = 1
        while given.at < given.size or (deed == _END and left):
            out = _Buffer(ctypes.cast(room, ctypes.c_char_p), _PIECE, 0)
            taken = zstd().ZSTD_compressStream2(self._context, ctypes.byref(out), ctypes.byref(given), deed)
            left = _right(taken)
            yield room.raw[: out.at]


def zstd_frame(image: memoryview) -> int | None:
    """Bytes of the frame that begins here; None when none does, or there is no library."""
    if zstd() is None:
        return None
    length = int(zstd().ZSTD_findFrameCompressedSize(bytes(image), len(image)))
    return None if zstd().ZSTD_isError(length) else length


def zstd_window(packed: bytes) -> int:
    """Bits of the window that a frame's header asks for; 0: the frame is one segment, or none."""
    if len(packed) < 6 or packed[:4] != ZSTD or packed[4] & 0x20:
        return 0
    return 10 + (packed[5] >> 3)


def zstd_opened(packed: bytes) -> Iterator[bytes]:
    """What a frame holds, in pieces."""
    library = _needed(zstd(), "zstd")
    context = library.ZSTD_createDCtx()
    given, room = _Buffer(packed, len(packed), 0), ctypes.create_string_buffer(_PIECE)
    try:
        left, full = 1, False
        while left and (given.at < given.size or full):
            out = _Buffer(ctypes.cast(room, ctypes.c_char_p), _PIECE, 0)
            left = _right(library.ZSTD_decompressStream(context, ctypes.byref(out), ctypes.byref(given)))
            full = out.at == _PIECE
            yield room.raw[: out.at]
        if left:
            raise DeltaError("a zstd block was cut")
    finally:
        library.ZSTD_freeDCtx(context)


class LegacyStream:
    """LZ4's legacy format, as the program packs it; a `codecs.Packer`."""

    def __init__(self, level: int) -> None:
        self._level, self._held, self._begun = level, bytearray(), False

    def compress(self, data: bytes, /) -> bytes:
        self._held += data
        return b"".join(self._blocks(_LEGACY_BLOCK))

    def flush(self) -> bytes:
        return b"".join(self._blocks(1))

    def _blocks(self, least: int) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            yield LEGACY
        while len(self._held) >= least:
            packed = lz4_pack(bytes(self._held[:_LEGACY_BLOCK]), self._level)
            del self._held[:_LEGACY_BLOCK]
            yield struct.pack("<I", len(packed)) + packed


def legacy_opened(packed: bytes) -> Iterator[bytes]:
    """What a legacy stream holds, a block at a time."""
    at = len(LEGACY)
    if packed[:at] != LEGACY:
        raise DeltaError("an LZ4 stream is damaged")
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 4], "little")
        block = packed[at + 4 : at + 4 + size]
        at += 4 + size
        if len(block) != size or not size:
            raise DeltaError("an LZ4 stream is damaged")
        yield lz4_open(block, _LEGACY_BLOCK)
