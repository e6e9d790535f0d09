"""The delta core in C (native/), called through ctypes: make, apply, describe.

Absent where no compiler was: `available()` says so, and `firmware.delta` then decodes in Python and makes
HDiffPatch's patches. Nothing here trusts a patch: the C decoder holds to the sizes and memory it is given.
"""

import ctypes
import functools
import hashlib
import mmap
import sys
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path

from skylift.core.errors import SkyliftError

PROFILES = {"mcu-16k": 1, "mcu-64k": 2, "linux-16m": 3}
ARCHES = ("plain", "thumb", "arm", "aarch64", "x86-64", "xtensa", "riscv", "arm+thumb")
_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
MOST_IMAGE = 0x7FFFFFFF  # bytes that one patch is made from, or makes
MOST_SEGMENTS = 24  # that a patch can tell of an image
PART_MEMORY = 16 << 20  # of the largest profile
_DROP_EVERY = 8 << 20  # bytes of image after which mapped pages of the base are given back

ERRORS = {
    1: "this is no delta, or a damaged one",
    2: "the delta ends before the image does",
    3: "the delta was made from another image than the one here",
    4: "the delta needs more memory than it may have",
    5: "the delta makes more bytes than are allowed",
    6: "the rebuilt image is not the one the delta promises",
    7: "the image could not be written",
    8: "stopped",
    9: "images of 2 GiB and more are not made into one patch",
    10: "this decoder was built without that profile or machine",
}

Image = bytes | bytearray | memoryview | mmap.mmap
Segments = tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]  # place, bytes, address: old, new


class DeltaError(SkyliftError):
    """The patch cannot be used; take the full image."""

    code = "bad_delta"


@dataclass(frozen=True, slots=True)
class Made:
    """A patch, and what the encoder saw."""

    patch: bytes
    arch: str
    matches: int
    covered: int  # bytes that stand in the base too, moved or not
    missed: int  # of those, bytes that no prediction had right
    fields: int  # address fields seen
    fields_moved: int  # of those, predicted to have changed
    fields_right: int  # of those, rightly
    cost_script: int  # bytes of patch
    cost_covered: int
    cost_extra: int


_WRITE = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(c_uint8), c_size_t)
_PROGRESS = ctypes.CFUNCTYPE(c_int, c_void_p, c_uint32, c_uint32)


class _Segment(ctypes.Structure):
    _fields_ = (("off", c_uint32), ("len", c_uint32), ("va", c_uint64))


class _Wish(ctypes.Structure):
    _fields_ = (
        ("profile", c_uint8),
        ("arch", c_int),
        ("base_sha256", c_uint8 * 32),
        ("target_sha256", c_uint8 * 32),
        ("progress", _PROGRESS),
        ("user", c_void_p),
        ("segments", POINTER(_Segment) * 2),
        ("segment_count", c_uint32 * 2),
    )


class _Made(ctypes.Structure):
    _fields_ = (
        ("patch", POINTER(c_uint8)),
        ("length", c_size_t),
        *(
            (name, c_uint32)
            for name in ("matches", "covered", "missed", "fields", "fields_moved", "fields_right")
        ),
        *((name, c_uint32) for name in ("cost_script", "cost_covered", "cost_extra")),
    )


class _Copy(ctypes.Structure):
    _fields_ = (("at", c_uint64), ("start", c_uint64), ("length", c_uint64))


def library_file() -> Path:
    """Where the core is, if it was built."""
    return Path(__file__).with_name(f"_skydelta{_SUFFIX}")


@functools.cache
def _library() -> ctypes.CDLL | None:
    path = library_file()
    if not path.exists():
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None  # of another platform: as if it were not there
    library.sd_make.argtypes = (
        c_void_p,
        c_uint64,
        c_void_p,
        c_uint64,
        POINTER(_Wish),
        POINTER(_Made),
    )
    library.sd_copies.argtypes = (
        c_void_p,
        c_uint64,
        c_void_p,
        c_uint64,
        c_uint32,
        POINTER(_Wish),
        POINTER(POINTER(_Copy)),
        POINTER(c_uint32),
    )
    library.sd_runs.argtypes = (
        c_void_p,
        c_uint64,
        c_void_p,
        c_uint64,
        POINTER(_Wish),
        POINTER(POINTER(_Copy)),
        POINTER(c_uint32),
    )
    library.sd_free_copies.argtypes = (POINTER(_Copy),)
    library.sd_free_copies.restype = None
    library.sd_free.argtypes = (POINTER(_Made),)
    library.sd_free.restype = None
    library.sd_detect.argtypes = (c_void_p, c_uint32)
    library.sd_btf_open.argtypes = library.sd_btf_close.argtypes = (c_void_p, c_uint32)
    library.sd_door_apply.argtypes = (
        c_void_p,
        c_uint64,
        c_char_p,
        c_uint64,
        c_uint64,
        c_uint64,
        c_int,
        _WRITE,
        c_void_p,
    )
    return library


def available() -> bool:
    """Whether the core was built here."""
    return _library() is not None


def detect(image: Image) -> str:
    """The machine an image is for, by the image alone; "plain" when nothing is recognised."""
    library = _library()
    assert library is not None
    with _Pinned(image) as pinned:
        return ARCHES[library.sd_detect(pinned.address, min(pinned.size, 0x7FFFFFFF))]


def make(
    old: Image,
    new: Image,
    profile: str,
    progress: Callable[[int, int], bool] | None = None,
    arch: str | None = None,
    segments: Segments | None = None,
) -> Made:
    """The patch from old to new. `progress(done, all)` is asked every so often; True stops it.

    `arch` overrides what the images say (tests), `segments` where they say that they are loaded. Raises
    `DeltaError`.
    """
    library = _library()
    assert library is not None
    if max(len(old), len(new)) > MOST_IMAGE:
        raise DeltaError(ERRORS[9])
    wish, made = _Wish(), _Made()
    wish.profile = PROFILES[profile]
    wish.arch = -1 if arch is None else ARCHES.index(arch)
    wish.base_sha256[:] = list(digest(old))
    wish.target_sha256[:] = list(digest(new))
    for k, loaded in enumerate(segments or ()):
        wish.segments[k] = (_Segment * len(loaded))(*(_Segment(*each) for each in loaded))
        wish.segment_count[k] = len(loaded)
    calls = dropped = 0

    def say(_user: object, done: int, everything: int) -> int:
        nonlocal calls, dropped
        calls += 1
        if abs(done - dropped) > _DROP_EVERY or (not done and not calls % 4):
            dropped = done
            drop(old)
            drop(new)
        return int(bool(progress and progress(done, everything)))

    wish.progress = _PROGRESS(say)
    with _Pinned(old) as a, _Pinned(new) as b:
        failed = library.sd_make(a.address, a.size, b.address, b.size, ctypes.byref(wish), ctypes.byref(made))
    if failed:
        raise DeltaError(ERRORS.get(failed, "the delta could not be made"))
    try:
        patch = ctypes.string_at(made.patch, made.length)
    finally:
        library.sd_free(ctypes.byref(made))
    told = {name: getattr(made, name) for name in Made.__slots__ if hasattr(_Made, name) and name != "patch"}
    return Made(patch=patch, arch=ARCHES[patch[4] & 15], **told)


def copies(
    old: Image, new: Image, shortest: int, progress: Callable[[int, int], bool] | None = None
) -> list[tuple[int, int, int]]:
    """(place in new, place in old, bytes) of long runs that stand in both, in the new image's order.

    Images below 4 GiB; takes 64 MB at most, and mapped pages are given back on the way. Raises `DeltaError`.
    """
    return _found("sd_copies", old, new, (c_uint32(shortest),), progress)


def runs(
    old: Image, new: Image, progress: Callable[[int, int], bool] | None = None
) -> list[tuple[int, int, int]]:
    """The same by a nearer look: runs in which most bytes agree, however short, as bsdiff finds them.

    Images below 2 GiB; takes about eight times the old image. Raises `DeltaError`.
    """
    return _found("sd_runs", old, new, (), progress)


def _found(
    name: str,
    old: Image,
    new: Image,
    more: tuple[c_uint32, ...],
    progress: Callable[[int, int], bool] | None,
) -> list[tuple[int, int, int]]:
    library = _library()
    assert library is not None
    wish, found, count = _Wish(), POINTER(_Copy)(), c_uint32()

    def say(_user: object, done: int, everything: int) -> int:
        drop(old)
        drop(new)
        return int(bool(progress and progress(done, everything)))

    wish.progress = _PROGRESS(say)
    with _Pinned(old) as a, _Pinned(new) as b:
        failed = getattr(library, name)(
            a.address,
            a.size,
            b.address,
            b.size,
            *more,
            ctypes.byref(wish),
            ctypes.byref(found),
            ctypes.byref(count),
        )
    if failed:
        raise DeltaError(ERRORS.get(failed, "the images could not be compared"))
    try:
        return [(found[k].at, found[k].start, found[k].length) for k in range(count.value)]
    finally:
        library.sd_free_copies(found)


def apply(
    old: Image,
    patch: bytes,
    write: Callable[[bytes], None],
    max_size: int,
    max_memory: int,
    base_checked: bool = False,
) -> None:
    """Hand the image on, a piece at a time, in order. Raises `DeltaError`, or what `write` raised.

    Nothing is written before header, base, memory and size are in order; the last check comes at the end, so
    what was written counts only when this returns.
    """
    library = _library()
    assert library is not None
    raised: list[BaseException] = []
    done = 0

    def hand_on(_user: object, piece: "ctypes._Pointer[c_uint8]", length: int) -> int:
        nonlocal done
        try:
            write(ctypes.string_at(piece, length))
        except BaseException as e:  # noqa: BLE001 - carried over the C frames, raised again below
            raised.append(e)
            return 1
        if done // _DROP_EVERY != (done + length) // _DROP_EVERY:
            drop(old)
        done += length
        return 0

    with _Pinned(old) as base:
        failed = library.sd_door_apply(
            base.address,
            base.size,
            patch,
            len(patch),
            max_size,
            max_memory,
            int(base_checked),
            _WRITE(hand_on),
            None,
        )
    if raised:
        raise raised[0]
    if failed:
        raise DeltaError(ERRORS.get(failed, "the delta does not apply"))


def turned(deed: str, description: bytes) -> bytes:
    """A kernel's description of its types (`firmware.btf`), opened ("open") or closed again ("close"). Raises
    `DeltaError` for what is none, or contradicts itself."""
    library = _library()
    assert library is not None
    body = bytearray(description)
    with _Pinned(body) as pinned:
        failed = getattr(library, f"sd_btf_{deed}")(pinned.address, pinned.size)
    if failed:
        raise DeltaError("a kernel's description of its types is damaged")
    return bytes(body)


def drop(image: Image) -> None:
    """Give mapped pages back: they are the file's, and come again when they are read. Of a view, all of what
    it looks at."""
    behind = image.obj if isinstance(image, memoryview) else image
    if isinstance(behind, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        behind.madvise(mmap.MADV_DONTNEED)


def digest(image: Image) -> bytes:
    """SHA-256; a mapped file's pages are given back as it goes."""
    seen, step = hashlib.sha256(), 8 << 20
    for at in range(0, len(image), step):
        with memoryview(image) as view:
            seen.update(view[at : at + step])
        drop(image)
    return seen.digest()


class _Pinned:
    """An image's address and size, good as long as the block lasts."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.size = len(image)
        self.address = 0
        self._held: object = None

    def __enter__(self) -> "_Pinned":
        image = self._image
        if isinstance(image, mmap.mmap | bytearray) or (isinstance(image, memoryview) and not image.readonly):
            held = (c_uint8 * self.size).from_buffer(image)
            self._held, self.address = held, ctypes.addressof(held)
        else:
            body = bytes(image)
            self._held = body
            self.address = ctypes.cast(c_char_p(body), c_void_p).value or 0
        return self

    def __exit__(self, *_what: object) -> None:
        self._held = None
