"""Other tools' patch formats: bsdiff, detools, HDiffPatch, zstd's --patch-from, VCDIFF; made, applied, read.

For clients that speak only those, and for comparing. None of them says which image it was made from: who
applies one checks the digest of what came out.
"""

from collections.abc import Callable
from dataclasses import dataclass

from skylift.firmware import hdiff
from skylift.firmware.peers import bsdiff, detools, vcdiff, zstd
from skylift.firmware.peers.stream import Run


@dataclass(frozen=True, slots=True)
class Format:
    """How patches of a format are made and applied; `told`: the image's size, and the runs of the old image
    it is made from, where the format tells them."""

    looks_like: Callable[[bytes], bool]
    make: Callable[[bytes, bytes], bytes]
    apply: Callable[[bytes, bytes], bytes]
    told: Callable[[bytes, bytes], tuple[int, list[Run]]] | None = None


FORMATS: dict[str, Format] = {
    "bsdiff": Format(
        lambda patch: patch.startswith(bsdiff.MAGIC),
        bsdiff.make,
        bsdiff.apply,
        lambda patch, old: bsdiff.told(patch),
    ),
    "hdiffpatch": Format(lambda patch: patch.startswith(b"HDIFF"), hdiff.plain_make, hdiff.plain_apply),
    "zstd": Format(lambda patch: patch.startswith(zstd.MAGIC), zstd.make, zstd.apply),
    "vcdiff": Format(lambda patch: patch.startswith(vcdiff.MAGIC), vcdiff.make, vcdiff.apply, vcdiff.told),
    "detools": Format(  # last: hardly anything tells it
        detools.looks_like, detools.make, detools.apply, lambda patch, old: detools.told(patch)
    ),
}


def format_of(patch: bytes) -> str | None:
    """Which of these formats a patch is in, by how it begins."""
    return next((name for name, form in FORMATS.items() if form.looks_like(patch)), None)


def make(name: str, old: bytes, new: bytes) -> bytes:
    """A patch of a peer's format. Raises `Rejected` where what it needs is missing here."""
    return FORMATS[name].make(old, new)


def apply(name: str, old: bytes, patch: bytes) -> bytes:
    """What a peer's patch makes of the old image. Raises `DeltaError` when it does not apply."""
    return FORMATS[name].apply(old, patch)


def told(name: str, patch: bytes, old: bytes) -> tuple[int, list[Run]] | None:
    """(bytes of the image, the runs of the old one it is made from); None where the format does not tell."""
    form = FORMATS[name]
    return form.told(patch, old) if form.told else None
