"""What applying an update costs, per byte, on this machine: the constants of `skylift.core.ways`.

Unpacks a compressed image by each codec, applies a delta of a program (every byte coded) and one of a large
image that is mostly copied, hashes, and writes to a file with a sync. Seconds per byte, the best of three;
the last line of stdout is one JSON object. A device is slower by the factor that the model allows for, and
its flash is not this machine's disk.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skylift.core import ways
from skylift.firmware import native, packed
from skylift.firmware.delta import rebuild

ROUNDS = 3


def best(deed: Callable[[], Any]) -> float:
    """Seconds of the quickest of a few."""
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        deed()
        times.append(time.perf_counter() - begun)
    return min(times)


def program(size: int) -> bytes:
    """So many bytes of programs: the libraries that are installed beside this interpreter."""
    found = bytearray()
    for library in sorted(Path(sys.prefix).rglob("*.so*")):
        found += library.read_bytes()
        if len(found) >= size:
            break
    return bytes(found[:size])


def changed(body: bytes, every: int) -> bytes:
    """Words changed here and there, as a linker does that moves things."""
    chance, new = random.Random(1), bytearray(body)
    for at in range(0, len(new) - 4, every):
        new[at : at + 4] = chance.randbytes(4)
    return bytes(new)


def measure(folder: Path) -> dict[str, float]:
    image = program(24 << 20)
    source, target = folder / "image", folder / "packed"
    source.write_bytes(image)
    found: dict[str, float] = {}
    for codec in (codec for codec in packed.CODECS if packed.available(codec)):
        packed.pack(source, target, codec)

        def unpack(codec: str = codec) -> None:
            with target.open("rb") as file:
                for _ in packed.unpack(file, codec, len(image)):
                    pass

        found[f"unpack {codec}"] = best(unpack) / len(image)
    found["hash"] = best(lambda: hashlib.sha256(image).digest()) / len(image)
    small = image[: 2 << 20]
    coded = native.make(small, changed(small, 64), "linux-16m").patch
    found["coded"] = best(lambda: rebuild(small, coded, _drop)) / len(small)
    still = native.make(image, changed(image, 1 << 20), "linux-16m").patch
    found["copied"] = best(lambda: rebuild(image, still, _drop)) / len(image)
    found["write"] = best(lambda: _write(folder / "slot", image)) / len(image)
    return found


def _drop(piece: bytes) -> None:
    pass


def _write(path: Path, body: bytes) -> None:
    with path.open("wb") as file:
        file.write(body)
        os.fsync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    model = {
        **{f"unpack {codec}": seconds for codec, seconds in ways.UNPACK_S.items()},
        "coded": ways.CODED_S,
        "copied": ways.COPIED_S,
        "write": ways.WRITE_S,
    }
    if not given.json:
        for name, seconds in found.items():
            print(f"{name:12} {seconds:.2e} s a byte, the model says {model.get(name, 0):.2e}")
    print(json.dumps({"measured": found, "model": model}))


if __name__ == "__main__":
    main()
