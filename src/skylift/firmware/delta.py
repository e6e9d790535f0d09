"""Binary patches between two images: `create_delta`, `apply_delta`, `rebuild`.

The patch is our own (docs/reference/delta-format.md), made by the C core: one piece for small images,
layers for large
ones and for those that hold their content packed. Where the core was not built, it is HDiffPatch's in a
header that names both images. A delta is trusted for nothing: it is applied only to the
exact base it was made from, never makes more bytes or takes more memory than the caller allows, and the
rebuilt image's digest decides.
"""

import hashlib
import mmap
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from skylift.firmware import assemble, codecs, hdiff, layered, layers, native, peers, purepython, skd2
from skylift.firmware.native import ARCHES, PROFILES
from skylift.firmware.native import DeltaError as DeltaError
from skylift.firmware.resume import after

MAGICS = (skd2.MAGIC, layers.MAGIC, hdiff.MAGIC)  # how our own patches begin
WORTH_IT = 0.7  # of the full image: above it the full image is sent
SMALL = ("thumb", "xtensa", "riscv", "arm+thumb")  # machines of devices with little memory
_MCU_IMAGE = 16 << 20
_ESPRESSIF = b"\xe9"  # how an application image of theirs begins
MOST_MEMORY = 512 << 20  # bytes that `rebuild` takes unless told otherwise
MEMORY = {"mcu-16k": 16 << 10, "mcu-64k": 64 << 10, "linux-16m": 16 << 20}

Image = bytes | bytearray | memoryview | str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Header:
    """What a patch says it is. The digests are whole, or (in our own format) their first 16 bytes, in hex."""

    format: str
    base_sha256: str
    target_sha256: str
    base_size: int
    target_size: int
    profile: str | None = None
    arch: str | None = None
    memory: int | None = None  # bytes a decoder takes at most
    length: int | None = None  # of the whole patch
    scratch: int = 0  # bytes put together besides, on disk where a folder is given
    needs: tuple[str, ...] = ()  # codecs, by name and version


def create_delta(
    old_firmware: Image,
    new_firmware: Image,
    output_path: str | os.PathLike[str],
    progress: Callable[[str], None] = lambda said: None,
    *,
    profile: str | None = None,
    max_ratio: float = WORTH_IT,
) -> dict[str, Any] | None:
    """Write a patch from old to new, when it is worth it (smaller than `max_ratio` of the full image).

    Returns `type` ("delta"), `old_version_hash`, `new_version_hash`, `patch_hash` (SHA-256, hex),
    `patch_size`, `full_size` (bytes) and `savings_percent`; or None, and writes nothing. Without a `profile`
    the images say which: `mcu-64k` for a microcontroller's, else `linux-16m`.
    """
    with opened(old_firmware) as old, opened(new_firmware) as new:
        progress("comparing")
        patch = make(old, new, profile, Path(output_path).parent, progress)
        old_hash, new_hash, full = native.digest(old).hex(), native.digest(new).hex(), len(new)
    if not full or len(patch) >= max_ratio * full:
        return None
    progress("writing")
    _write(Path(output_path), patch)
    return {
        "type": "delta",
        "old_version_hash": old_hash,
        "new_version_hash": new_hash,
        "patch_hash": hashlib.sha256(patch).hexdigest(),
        "patch_size": len(patch),
        "full_size": full,
        "savings_percent": round(100 * (1 - len(patch) / full), 1),
    }


def make(
    old: bytes | mmap.mmap,
    new: bytes | mmap.mmap,
    profile: str | None = None,
    scratch: Path | None = None,
    progress: Callable[[str], None] = lambda said: None,
) -> bytes:
    """The patch's bytes, in our own format where the core was built, else HDiffPatch's. `scratch`: a folder
    for what packed images hold; else the system's. `progress` is told what stays packed, and why."""
    if not native.available():
        return hdiff.make(bytes(old), bytes(new))
    if profile is None and layered.worth_layers(old, new):
        made = layered.make(old, new, scratch=scratch)
        for reason in made.reasons:
            progress(reason)
        return made.patch
    return native.make(old, new, profile or profile_for(new)).patch


def profile_for(image: bytes | mmap.mmap) -> str:
    """The profile that fits the devices such an image runs on."""
    machine = native.detect(image) if len(image) <= _MCU_IMAGE else "plain"
    if machine in ("xtensa", "riscv") and image[:1] == _ESPRESSIF:
        return "mcu-16k"  # what clients/esp32 and clients/micropython have for a delta
    return "mcu-64k" if machine in SMALL else "linux-16m"


def apply_delta(old_firmware: Image, patch: Image, max_size: int | None = None) -> bytes:
    """The image that the patch rebuilds from exactly the image it was made for.

    `max_size`: the size that signed metadata allows. Raises `DeltaError` for anything wrong, before or after.
    """
    pieces: list[bytes] = []
    with opened(patch) as body:
        rebuild(old_firmware, bytes(body), pieces.append, max_size)
    return b"".join(pieces)


def rebuild(
    old_firmware: Image,
    patch: bytes,
    write: Callable[[bytes], None],
    max_size: int | None = None,
    max_memory: int = MOST_MEMORY,
    scratch: Path | None = None,
    start: int = 0,
) -> None:
    """Hand the new image to `write`, a piece at a time and in order.

    Header, base, size and memory are checked before the first piece; the digest at the end: what was written
    counts only when this returns. `scratch`: a folder for what layers are put together from, else that is
    memory too. `start`: bytes of the image that are there already; they are not handed on, and of layers not
    made again: then the digest of the whole is for the caller to see. Raises `DeltaError`, or what
    `write` raised.
    """
    header = read_header(patch)
    if lacking := [name for name in header.needs if not codecs.available(name)]:
        raise DeltaError(f"the patch needs {', '.join(lacking)}, which is not here")
    if max_size is not None and header.target_size > max_size:
        raise DeltaError(f"the patch makes {header.target_size} bytes, at most {max_size} are allowed")
    memory = (header.memory or 0) + (0 if scratch else header.scratch)
    if memory > max_memory:
        raise DeltaError(f"the patch takes {memory} bytes of memory, at most {max_memory} are allowed")
    with opened(old_firmware) as old:
        if len(old) != header.base_size or not native.digest(old).hex().startswith(header.base_sha256):
            raise DeltaError("the patch was made from another image than the one here")
        seen = hashlib.sha256()

        def hand_on(piece: bytes) -> None:
            seen.update(piece)
            late(piece)

        late = write if header.format == "skylift-layers" else after(start, write)
        if header.format == "hdiffpatch":
            hand_on(hdiff.apply(bytes(old), patch))
        elif len(patch) != header.length:
            raise DeltaError(f"the patch has {len(patch)} bytes, its header says {header.length}")
        elif header.format == "skylift-layers":
            assemble.apply(old, patch, layers.read_head(patch), hand_on, max_memory, scratch, start)
        elif native.available():
            native.apply(old, patch, hand_on, header.target_size, max_memory, base_checked=True)
        else:
            purepython.apply(old, patch, hand_on)
    whole = not start or header.format != "skylift-layers"
    if whole and not seen.hexdigest().startswith(header.target_sha256):
        raise DeltaError("the rebuilt image is not the one the patch promises")


def read_header(patch: bytes) -> Header:
    """The header. Raises `DeltaError` when these bytes are no patch of ours."""
    if patch.startswith(hdiff.MAGIC):
        base, target, base_size, target_size = hdiff.read_header(patch)
        return Header("hdiffpatch", base, target, base_size, target_size)
    if patch.startswith(layers.MAGIC):
        return _of_layers(layers.read_head(patch))
    facts = skd2.read_header(patch)
    profile = next(name for name, number in PROFILES.items() if number == facts.profile)
    return Header(
        "skylift",
        facts.base_sha256.hex(),
        facts.target_sha256.hex(),
        facts.base_size,
        facts.target_size,
        profile,
        ARCHES[facts.arch],
        MEMORY[profile],
        skd2.HEADER.size + facts.body,
    )


def facts(patch: bytes) -> dict[str, Any]:
    """What a patch says of itself, ours or another tool's. Raises `DeltaError` when it is none."""
    if patch.startswith(MAGICS):
        told = {name: value for name, value in asdict(read_header(patch)).items() if value is not None}
    elif name := peers.format_of(patch):
        told = {"format": name}
    else:
        raise DeltaError("this is no patch of any format that is known here")
    return {**told, "patch_size": len(patch)}


def _of_layers(head: layers.Head) -> Header:
    return Header(
        "skylift-layers",
        head.base_sha256.hex(),
        head.target_sha256.hex(),
        head.base_size,
        head.target_size,
        memory=head.memory,
        length=head.length + head.plan_packed + head.body,
        scratch=head.scratch,
        needs=head.needs,
    )


@contextmanager
def opened(image: Image) -> Any:
    """Bytes as they are; a file mapped, not read: a large one never stands in memory whole."""
    if not isinstance(image, str | os.PathLike):
        yield image if isinstance(image, bytes) else bytes(image)
        return
    with Path(image).open("rb") as file:
        if not _size(file):
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            yield mapped


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _write(path: Path, body: bytes) -> None:
    """Under a temporary name, durable, then renamed."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
