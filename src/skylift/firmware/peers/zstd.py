"""zstd's `--patch-from`: an ordinary frame whose window reaches back over the old image.

By the system's libzstd, where it is, as for packed blocks (`firmware.libraries`).
"""

import ctypes
import functools
from typing import Any

from skylift.core.errors import invalid
from skylift.firmware import libraries
from skylift.firmware.native import DeltaError

MAGIC = b"\x28\xb5\x2f\xfd"
_LEVEL, _WINDOW, _LONG, _CHECKSUM = 100, 101, 160, 201  # parameters of its interface
_MOST_WINDOW = 31  # bits
_MOST_IMAGE = 1 << 31
_UNKNOWN = (1 << 64) - 2  # what is said of a size that is not told, and of one that cannot be: 2**64 - 1


@functools.cache
def _library() -> Any:
    library = libraries.zstd()
    if library is None:
        return None
    size, text, place = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
    for name in ("ZSTD_createCCtx", "ZSTD_createDCtx"):
        getattr(library, name).restype = place
    for name in ("ZSTD_freeCCtx", "ZSTD_freeDCtx"):
        getattr(library, name).argtypes = (place,)
    for name in ("ZSTD_CCtx_setParameter", "ZSTD_DCtx_setParameter"):
        getattr(library, name).argtypes = (place, ctypes.c_int, ctypes.c_int)
        getattr(library, name).restype = size
    for name in ("ZSTD_CCtx_refPrefix", "ZSTD_DCtx_refPrefix"):
        getattr(library, name).argtypes = (place, text, size)
        getattr(library, name).restype = size
    for name in ("ZSTD_compress2", "ZSTD_decompressDCtx"):
        getattr(library, name).argtypes = (place, text, size, text, size)
        getattr(library, name).restype = size
    library.ZSTD_getFrameContentSize.argtypes = (text, size)
    library.ZSTD_getFrameContentSize.restype = ctypes.c_uint64
    library.ZSTD_getErrorName.argtypes = (size,)
    library.ZSTD_getErrorName.restype = text
    return library


def _needed() -> Any:
    library = _library()
    if library is None:
        raise invalid("format", "zstd", "needs libzstd, which is not here")
    return library


def make(old: bytes, new: bytes, level: int = 19) -> bytes:
    library = _needed()
    if len(old) + len(new) > _MOST_IMAGE:
        raise invalid("format", "zstd", f"takes images of {_MOST_IMAGE} bytes together at most")
    window = min(max((len(old) + len(new)).bit_length(), 10), _MOST_WINDOW)
    context = library.ZSTD_createCCtx()
    try:
        for parameter, value in ((_LEVEL, level), (_WINDOW, window), (_LONG, 1), (_CHECKSUM, 1)):
            _right(library.ZSTD_CCtx_setParameter(context, parameter, value))
        _right(library.ZSTD_CCtx_refPrefix(context, old, len(old)))
        room = library.ZSTD_compressBound(len(new))
        out = ctypes.create_string_buffer(room)
        done = _right(library.ZSTD_compress2(context, out, room, new, len(new)))
        return out.raw[:done]
    finally:
        library.ZSTD_freeCCtx(context)


def apply(old: bytes, patch: bytes) -> bytes:
    """Raises `DeltaError`."""
    library = _needed()
    size = library.ZSTD_getFrameContentSize(patch, len(patch))
    if size >= _UNKNOWN:
        raise DeltaError("this is no patch of zstd's, or it does not tell the image's size")
    if size > _MOST_IMAGE:
        raise DeltaError(f"the patch makes {size} bytes, at most {_MOST_IMAGE} are made")
    context = library.ZSTD_createDCtx()
    try:
        _right(library.ZSTD_DCtx_setParameter(context, _LEVEL, _MOST_WINDOW))  # there, the largest window
        _right(library.ZSTD_DCtx_refPrefix(context, old, len(old)))
        out = ctypes.create_string_buffer(size + 1)
        done = _right(library.ZSTD_decompressDCtx(context, out, size, patch, len(patch)))
        return out.raw[:done]
    finally:
        library.ZSTD_freeDCtx(context)


def _right(result: int) -> int:
    if _needed().ZSTD_isError(result):
        raise DeltaError(f"zstd: {_needed().ZSTD_getErrorName(result).decode()}")
    return result
