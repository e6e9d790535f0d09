"""Binary patches between two images: `create_delta` and `apply_delta`.

The patch is HDiffPatch's, in a header of ours that names both images by digest and size. A delta is trusted
for nothing: it is applied only to the exact base it was made from, never makes more bytes than the header
and the caller allow, and the rebuilt image's digest decides.
"""

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hdiffpatch

from skylift.core.errors import SkyliftError

WORTH_IT = 0.7  # of the full image: above it the full image is sent
MAGIC = b"SKYDELTA"
FORMAT = 1
_HEADER = struct.Struct(">8sHxx32s32sQQ")  # magic, format, base and target digest, base and target size
_INNER = b"HDIFF"

Image = bytes | bytearray | memoryview | str | os.PathLike[str]


class DeltaError(SkyliftError):
    """The patch cannot be used; take the full image."""

    code = "bad_delta"


@dataclass(frozen=True, slots=True)
class Header:
    """What a patch says it is."""

    base_sha256: str
    target_sha256: str
    base_size: int
    target_size: int


def create_delta(
    old_firmware: Image,
    new_firmware: Image,
    output_path: str | os.PathLike[str],
    progress: Callable[[str], None] = lambda said: None,
) -> dict[str, Any] | None:
    """Write a patch from old to new, when it is worth it (smaller than 0.7 of the full image).

    Returns `type` ("delta"), `old_version_hash`, `new_version_hash`, `patch_hash` (SHA-256, hex),
    `patch_size`, `full_size` (bytes) and `savings_percent`; or None, and writes nothing.
    """
    old, new = _bytes(old_firmware), _bytes(new_firmware)
    progress("comparing")
    inner = hdiffpatch.diff(old, new, "lzma2", validate=True)
    header = _HEADER.pack(MAGIC, FORMAT, _digest(old), _digest(new), len(old), len(new))
    patch = header + inner
    if not new or len(patch) >= WORTH_IT * len(new):
        return None
    progress("writing")
    _write(Path(output_path), patch)
    return {
        "type": "delta",
        "old_version_hash": hashlib.sha256(old).hexdigest(),
        "new_version_hash": hashlib.sha256(new).hexdigest(),
        "patch_hash": hashlib.sha256(patch).hexdigest(),
        "patch_size": len(patch),
        "full_size": len(new),
        "savings_percent": round(100 * (1 - len(patch) / len(new)), 1),
    }


def apply_delta(old_firmware: Image, patch: Image, max_size: int | None = None) -> bytes:
    """The image that the patch rebuilds from exactly the image it was made for.

    `max_size`: the size that signed metadata allows. Raises `DeltaError` for anything wrong, before or after.
    """
    body = _bytes(patch)
    header = read_header(body)
    if max_size is not None and header.target_size > max_size:
        raise DeltaError(f"the patch makes {header.target_size} bytes, at most {max_size} are allowed")
    old = _bytes(old_firmware)
    if len(old) != header.base_size or hashlib.sha256(old).hexdigest() != header.base_sha256:
        raise DeltaError("the patch was made from another image than the one here")
    inner = body[_HEADER.size :]
    if (claimed := _inner_sizes(inner)) != (header.target_size, header.base_size):
        raise DeltaError(f"the patch's inner sizes {claimed} contradict its header")
    try:
        new = hdiffpatch.apply(old, inner)
    except (hdiffpatch.HDiffPatchError, MemoryError, ValueError) as e:
        raise DeltaError(f"the patch does not apply: {e}") from e
    if len(new) != header.target_size or hashlib.sha256(new).hexdigest() != header.target_sha256:
        raise DeltaError("the rebuilt image is not the one the patch promises")
    return bytes(new)


def read_header(patch: bytes) -> Header:
    """The header. Raises `DeltaError` when these bytes are no patch of ours."""
    if len(patch) < _HEADER.size:
        raise DeltaError(f"a patch has at least {_HEADER.size} bytes, this has {len(patch)}")
    magic, version, base, target, base_size, target_size = _HEADER.unpack_from(patch)
    if magic != MAGIC or version != FORMAT:
        raise DeltaError("not a patch, or of a format this version does not know")
    return Header(base.hex(), target.hex(), base_size, target_size)


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


def _bytes(image: Image) -> bytes:
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    return bytes(image)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _write(path: Path, body: bytes) -> None:
    """Under a temporary name, durable, then renamed."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
