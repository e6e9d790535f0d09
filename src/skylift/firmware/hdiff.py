"""HDiffPatch's patches in a header that names both images: what is made where the C core was not built."""

import hashlib
import struct

import hdiffpatch

from skylift.firmware.native import DeltaError

MAGIC = b"SKYDELTA"
FORMAT = 1
HEADER = struct.Struct(">8sHxx32s32sQQ")  # magic, format, base and target digest, base and target size
_INNER = b"HDIFF"


def make(old: bytes, new: bytes) -> bytes:
    """Header and patch."""
    inner: bytes = hdiffpatch.diff(old, new, "lzma2", validate=True)
    digests = (hashlib.sha256(old).digest(), hashlib.sha256(new).digest())
    return HEADER.pack(MAGIC, FORMAT, *digests, len(old), len(new)) + inner


def apply(old: bytes, patch: bytes) -> bytes:
    """The new image, of the size the header says. Raises `DeltaError`."""
    _, _, base_size, target_size = read_header(patch)
    inner = patch[HEADER.size :]
    if (claimed := _inner_sizes(inner)) != (target_size, base_size):
        raise DeltaError(f"the patch's inner sizes {claimed} contradict its header")
    try:
        new = hdiffpatch.apply(old, inner)
    except (hdiffpatch.HDiffPatchError, MemoryError, ValueError) as e:
        raise DeltaError(f"the patch does not apply: {e}") from e
    if len(new) != target_size:
        raise DeltaError("the rebuilt image is not the one the patch promises")
    return bytes(new)


def plain_make(old: bytes, new: bytes) -> bytes:
    """HDiffPatch's patch without a header of ours."""
    return bytes(hdiffpatch.diff(old, new, "lzma2"))


def plain_apply(old: bytes, patch: bytes) -> bytes:
    """What such a patch makes; its sizes are its own word. Raises `DeltaError`."""
    try:
        return bytes(hdiffpatch.apply(old, patch))
    except (hdiffpatch.HDiffPatchError, MemoryError, ValueError) as e:
        raise DeltaError(f"the patch does not apply: {e}") from e


def read_header(patch: bytes) -> tuple[str, str, int, int]:
    """Base and target digest (hex), base and target size. Raises `DeltaError`."""
    if len(patch) < HEADER.size:
        raise DeltaError(f"a patch has at least {HEADER.size} bytes, this has {len(patch)}")
    magic, version, base, target, base_size, target_size = HEADER.unpack_from(patch)
    if magic != MAGIC or version != FORMAT:
        raise DeltaError("not a patch, or of a format this version does not know")
    return base.hex(), target.hex(), base_size, target_size


def _inner_sizes(inner: bytes) -> tuple[int, int]:
    """(new, old) size in HDiffPatch's own header: `HDIFF13&codec\\0`, then two variable-length integers. Read
    before applying, so that no patch asks for gigabytes."""
    end = inner.find(b"\0", 0, 64)
    if not inner.startswith(_INNER) or end < 0:
        raise DeltaError("the patch's inner header is not one of HDiffPatch's")
    new, at = _varint(inner, end + 1)
    old, _ = _varint(inner, at)
    return new, old


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, most significant first, the top bit says that more follow."""
    value = 0
    for _ in range(10):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at
    raise DeltaError("the patch's inner header is cut")
