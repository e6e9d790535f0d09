"""Makes layers.json: layered deltas of small synthetic images, and bad ones."""

import base64
import gzip
import json
import lzma
import zlib
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from skylift.firmware import layered, layers

WHERE = Path(__file__).with_name("layers.json")


def packed(body: bytes) -> str:
    return base64.b64encode(zlib.compress(body, 9)).decode()


def text(seed: int, lines: int) -> bytes:
    random = Random(seed)
    return b"".join(b"setting%d = %d\n" % (k, random.randrange(1000)) for k in range(lines))


def vectors() -> list[dict[str, Any]]:
    """`name`, `base`, `patch`, `needs`, and `target` or `error`, as in vectors.json."""
    noise, before = Random(1).randbytes(20_000), text(1, 900)
    after = before[:6000] + b"one more = 1\n" + before[6000:]
    pairs = {
        "copied, new, repeated": (
            noise + before,
            before + noise[:9000] + after[:500] + bytes(9000) + noise[9000:],
        ),
        "gzip": (gzip.compress(before, 9, mtime=0), gzip.compress(after, 9, mtime=0)),
        "lzma": tuple(lzma.compress(body, lzma.FORMAT_ALONE, preset=6) for body in (before, after)),
        "from nothing": (b"", before),
        "to nothing": (before, b""),
    }
    found: list[dict[str, Any]] = []
    for name, (base, target) in pairs.items():
        patch = layered.make(base, target).patch
        needs = list(layers.read_head(patch).needs)
        bodies = {"base": packed(base), "patch": packed(patch), "target": packed(target)}
        found.append({"name": name, "needs": needs, **bodies})
    base, target = pairs["gzip"]
    patch = layered.make(base, target).patch
    head = layers.read_head(patch)
    flipped = base[:500] + bytes([base[500] ^ 1]) + base[501:]

    def bad(name: str, body: bytes, base: bytes = base) -> None:
        found.append({"name": name, "base": packed(base), "patch": packed(body), "error": "refused"})

    def resealed(**changed: Any) -> bytes:
        return layers.write_head(replace(head, **changed)) + patch[head.length :]

    bad("base differs by one bit", patch, flipped)
    bad("cut in the header", patch[:60])
    bad("cut in the description", patch[: head.length + 10])
    bad("last byte missing", patch[:-1])
    bad("header flipped", patch[:20] + bytes([patch[20] ^ 1]) + patch[21:])
    bad("another version", patch[:4] + b"\x09" + patch[5:])
    bad("wants 4 GB of memory", resealed(memory=4 << 30))
    bad("wants 4 GB of scratch", resealed(scratch=4 << 30))
    bad("takes more memory than it says", resealed(memory=1000))
    bad("a need that nobody has", resealed(needs=(*head.needs, "zstd 15 0.0.1")))
    bad("a need that it does not name", resealed(needs=()))
    bad("a larger target than it makes", resealed(target_size=head.target_size + 1))
    bad("a description of another size", resealed(plan_size=head.plan_size - 1))
    bad("another target promised", resealed(target_sha256=bytes(32)))
    return found


if __name__ == "__main__":
    WHERE.write_text(json.dumps(vectors(), indent=1) + "\n")
