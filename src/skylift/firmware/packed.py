"""Full images, compressed to travel: a row of xz streams or zstd frames, each of `FRAME` bytes of the image.

Any `xz -d` or `zstd -d` opens them. Each frame stands for itself: whoever was interrupted goes on at the last
one that was whole, with no more to remember than two offsets. Cut into frames of 4 MiB, an image of 24 MB
comes out 2 % larger than in one piece; its decoder takes 4 MiB however large the image is.

xz is Python's own, and smaller. zstd is Python's from 3.14 on, else the `zstandard` package's, where it is
installed: quicker to unpack, for devices without LZMA. What comes out is bounded, whatever comes in, and
trusted for nothing: the image's digest decides.
"""

import lzma
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from skylift.firmware.native import DeltaError

FRAME = 4 << 20  # bytes of the image in one frame
CODECS = ("xz", "zstd")  # in the order of their results' sizes
_BESIDES = 2 << 20  # bytes that a decoder takes besides its window
_PIECE = 256 << 10  # bytes of the image that are handed on at once
_SLICE = 256  # bytes given to a decoder that knows no bound: what they can unpack to fits into 12 MB
_LEVEL = {"xz": 6, "zstd": 19}
_QUICK = {"xz": 1, "zstd": 9}  # of images above `LARGE`
LARGE = 256 << 20


def available(codec: str) -> bool:
    """Whether this codec can be unpacked (and packed) here."""
    return codec == "xz" or (codec == "zstd" and _zstd() is not None)


def memory(codec: str, size: int) -> int:
    """Bytes that unpacking an image of this size takes at most."""
    return _window(size) * (1 if codec == "xz" else 2) + _BESIDES


def _window(size: int) -> int:
    return 1 << max(12, (min(size, FRAME) - 1).bit_length()) if size else 1 << 12


def pack(source: Path, target: Path, codec: str) -> int:
    """Write the image compressed; bytes written. The same input gives the same bytes on one machine."""
    size, written = source.stat().st_size, 0
    squeeze = _packer(codec, size)
    with source.open("rb") as file, target.open("wb") as out:
        while frame := file.read(FRAME):
            written += out.write(squeeze(frame))
    return written


def _packer(codec: str, size: int) -> Callable[[bytes], bytes]:
    level = (_LEVEL if size <= LARGE else _QUICK)[codec]
    if codec == "xz":
        filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": _window(size)}]
        return lambda frame: lzma.compress(frame, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
    found = _zstd()
    if found is None:
        raise DeltaError(f"{codec} is not here")
    packs: Callable[[bytes], bytes] = found.packer(level)
    return packs


def unpack(source: BinaryIO, codec: str, size: int) -> Iterator[bytes]:
    """The image, piece by piece. Raises `DeltaError` where it is damaged, or not of this size."""
    opened = Unpacker(codec, size)
    while chunk := source.read(64 << 10):
        yield from opened.feed(chunk)
    opened.end()


class Unpacker:
    """The frames of one image, as they come in. `given` and `taken`: bytes of the image and of the file up to
    the end of the last whole frame; a new one goes on there."""

    def __init__(self, codec: str, size: int, given: int = 0, taken: int = 0) -> None:
        """`size`: of the whole image, bytes. Raises `DeltaError` for a codec that is not here."""
        if not available(codec):
            raise DeltaError(f"{codec} is not here")
        self.given, self.taken = given, taken
        self._codec, self._size = codec, size
        self._given, self._taken = given, taken  # with what there is of the frame under way
        self._frame: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes unpack to, to be taken whole: `given` and `taken` move on behind it."""
        while data:
            if self._frame is None:
                if self._given == self._size:
                    raise DeltaError("the packed image goes on behind its end")
                self._frame = self._decoder()
            frame, fed = self._frame, len(data)
            yield from self._within(frame, data)
            data = frame.rest
            self._taken += fed - len(data)
            if frame.ended:
                self.given, self.taken, self._frame = self._given, self._taken, None

    def end(self) -> None:
        """All has been fed. Raises `DeltaError` where something is missing."""
        if self._frame is not None or self._given != self._size:
            raise DeltaError(f"the packed image ends after {self._given} of {self._size} bytes")

    def _within(self, frame: Any, data: bytes) -> Iterator[bytes]:
        most = min(self._size, self.given + FRAME)
        for piece in frame.decode(data):
            self._given += len(piece)
            if self._given > most:
                raise DeltaError("the packed image holds more than it should")
            if piece:
                yield piece

    def _decoder(self) -> Any:
        if self._codec == "xz":
            limit = memory("xz", self._size)
            return _Bounded(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, limit), lzma.LZMAError)
        return _zstd().decoder(_window(self._size))


class _Bounded:
    """A decoder of Python's own: says how much it gives at once."""

    def __init__(self, make: Callable[[], Any], error: type[Exception]) -> None:
        self._inner, self._error = make(), error
        self.rest = b""

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    def decode(self, data: bytes) -> Iterator[bytes]:
        self.rest = b""
        try:
            while True:
                yield self._inner.decompress(data, _PIECE)
                if self._inner.eof or self._inner.needs_input:
                    break
                data = b""
        except self._error as e:
            raise DeltaError(f"the packed image is damaged: {e}") from e
        if self._inner.eof:
            self.rest = self._inner.unused_data


class _Sliced:
    """The `zstandard` package's: gives all that its input holds, so it gets little at a time."""

    def __init__(self, inner: Any, error: type[Exception]) -> None:
        self._inner, self._error = inner, error
        self.rest = b""
        self.ended = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        self.rest = b""
        for at in range(0, len(data), _SLICE):
            try:
                yield self._inner.decompress(data[at : at + _SLICE])
            except self._error as e:
                raise DeltaError(f"the packed image is damaged: {e}") from e
            if self._inner.eof:
                self.ended = True
                self.rest = self._inner.unused_data + data[at + _SLICE :]
                return


# --- zstd, where it is ------------------------------------------------------------------------------------


class _Own:
    """`compression.zstd`, Python 3.14's."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def packer(self, level: int) -> Callable[[bytes], bytes]:
        made: Callable[[bytes], bytes] = lambda frame: self._library.compress(frame, level)  # noqa: E731
        return made

    def decoder(self, window: int) -> _Bounded:
        options = {self._library.DecompressionParameter.window_log_max: window.bit_length() - 1}
        make = lambda: self._library.ZstdDecompressor(options=options)  # noqa: E731
        return _Bounded(make, self._library.ZstdError)


class _Package:
    """The `zstandard` package."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def packer(self, level: int) -> Callable[[bytes], bytes]:
        made: Callable[[bytes], bytes] = self._library.ZstdCompressor(level=level).compress
        return made

    def decoder(self, window: int) -> _Sliced:
        opener = self._library.ZstdDecompressor(max_window_size=window)
        return _Sliced(opener.decompressobj(), self._library.ZstdError)


@cache
def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore] # from 3.14 on

        return _Own(zstd)
    except ImportError:
        pass
    try:
        import zstandard

        return _Package(zstandard)
    except ImportError:
        return None
