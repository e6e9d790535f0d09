"""BTF, the description of its types that a Linux kernel carries: where it lies in an image.

Its types refer to each other by number, and compilers on many cores number them anew every time: between two
kernels nearly every number differs, though hardly a type does. As a codec (`firmware.codecs`), `btf` opens it
in place, not a byte longer or shorter, with the numbers made into names (native/btf.c).
"""

import re
import struct
from collections.abc import Iterator

from skylift.firmware.unit import Unit

_HEAD = struct.Struct("<HBBIIIII")  # magic, version, flags, length; offset and length of types and of names
_MAGIC = re.compile(re.escape(_HEAD.pack(0xEB9F, 1, 0, _HEAD.size, 0, 0, 0, 0)[:12]))
SMALLEST = 1 << 16  # bytes; a module's own is smaller, and counts its types from the kernel's
LARGEST = 16 << 20


def units(image: memoryview) -> Iterator[Unit]:
    """The descriptions in an image that lie one behind the other in it, as a linker wrote them."""
    end = 0
    for hit in _MAGIC.finditer(image):
        at = hit.start()
        if at < end or at + _HEAD.size > len(image):
            continue
        _, _, _, head, types, types_size, names, names_size = _HEAD.unpack_from(image, at)
        size = head + names + names_size
        if types == 0 and names == types_size and SMALLEST <= size <= min(LARGEST, len(image) - at):
            end = at + size
            yield Unit(at, size, size, "btf")
