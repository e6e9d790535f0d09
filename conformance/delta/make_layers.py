"""Makes layers.json: layered deltas of small synthetic images, and bad ones."""

import base64
import gzip
import json
import lzma
import struct
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


Record = tuple[
    int, str, int, int, list[tuple[str | int, ...]]
]  # kind, name, flags and count, third word, rows


def records() -> list[Record]:
    """A kernel's types, of every kind; numbers are places in this list, from 1 on."""
    random = Random(7)
    named, known = 800, [(1, "int", 0, 4, [(32,)]), (16, "double", 0, 8, []), (18, "user", 0, 1, [])]
    found: list[Record] = [*known]

    def any_type() -> int:
        return random.randrange(1, named * 3)

    for k in range(named):
        rows = [(f"field{random.randrange(400)}", any_type(), 32 * m) for m in range(random.randrange(1, 7))]
        found.append((4 + k % 2, f"thing{k}", len(rows), 4 * len(rows), list(rows)))
        found.append((2, "", 0, len(found), []))
        found.append((random.choice((9, 10, 11)), "", 0, len(found), []))
    kinds: list[Record] = [
        (3, "", 0, 0, [(any_type(), 1, 16)]),
        (6, "state", 2, 4, [("ON", 0), ("OFF", 1)]),
        (7, "elsewhere", 0, 0, []),
        (8, "thing_t", 0, any_type(), []),
        (13, "", 2, 1, [("first", any_type()), ("second", any_type())]),
        (12, "work", 1, len(found) + 5, []),
        (14, "counter", 0, any_type(), [(1,)]),
        (15, ".data", 1, 64, [(len(found) + 7, 0, 4)]),
        (17, "tagged", 0, len(found) + 8, [(0,)]),
        (19, "large", 1, 8, [("HUGE", 1, 2)]),
    ]
    return found + kinds


# What in a record, besides its name, is a name or the number of a type: the third word, a row's.
THIRD = (2, 8, 9, 10, 11, 12, 13, 14, 17, 18)
ROW = {3: "tt.", 4: "nt.", 5: "nt.", 6: "n.", 13: "nt", 15: "t..", 19: "n.."}
COUNTED = (4, 5, 6, 13, 15, 19)


def description(order: list[int], added: str) -> bytes:
    """These types' BTF as a compiler may write it: `order` holds places in `records()`, all of them once."""
    known, names, places = records(), bytearray(b"\0"), {"": 0}
    number = {place + 1: k + 1 for k, place in enumerate(order)}

    def name(text: str) -> int:
        if text not in places:
            places[text] = len(names)
            names.extend(text.encode() + b"\0")
        return places[text]

    name(added)
    words: list[int] = []
    for place in order:
        kind, own, count, third, rows = known[place]
        words += [name(own), kind << 24 | (count if kind in COUNTED else 0)]
        words.append(number[third] if kind in THIRD else third)
        for row in rows:
            for what, word in zip(ROW.get(kind, "."), row, strict=True):
                turn = {"n": name, "t": number.__getitem__}.get(what, int)
                words.append(turn(word))  # type: ignore[operator, arg-type] # the letter says what the word is
    types = struct.pack(f"<{len(words)}I", *words)
    return struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names)) + types + names


def kernels() -> tuple[bytes, bytes]:
    """Two, in which the same types are numbered in another order, and little else differs."""
    known, random = len(records()), Random(8)
    runs = [list(range(at, min(at + 70, known))) for at in range(0, known, 70)]
    before = description([place for run in runs for place in run], "once")
    random.shuffle(runs)
    after = description([place for run in runs for place in run], "again")
    code = text(3, 700)
    return code + before + code[:5000], code[:900] + b"new = 1\n" + code[900:] + after + code[:5000]


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
        "a kernel's types, numbered anew": kernels(),
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
