"""How an update's bytes get to a device: whole, packed, by a delta or by a chain of deltas. Pure.

What each way costs is a frozen row (`Cost`): bytes that travel, memory and disk the device gives for it,
bytes written to its flash, seconds of its work. `decide` takes the cheapest that the device can follow, and
says in words why not another.

The rules:
- Nothing that is sent is larger than the smallest form of the full image that this device can take.
- A delta or a chain is below `max_ratio` of the full image as a compressor leaves it: beating the raw image
  is no merit.
- No way asks for more memory than the device told. A device that told nothing gets the full image, or a delta
  that it judges itself: those are what every client of this API has understood from the beginning. So it is
  with the codecs that a delta needs: their names bear versions, and whether that one is there a device knows.
- A chain is taken only where it costs less than the delta.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

MAX_RATIO = 0.7  # of the compressed full image: above it the full image is sent
MOST_HOPS = 3  # in a chain: each one is a whole image written and read again
MOST_SECONDS = 900.0  # of work on the device: half of what an installation may take (installing_deadline_s)

# Measured by `dev.py bench ways` on a shared core of a server. `SLOWER` carries them to a device: with it a
# coded byte costs what the 1,274 instructions do that a microcontroller of 240 MHz needs for one
# (docs/reference/deltas.md); how much slower a Linux board is differs, and nothing here is promised to it.
SLOWER = 5.0
CODED_S = 1.3e-6  # a byte of a program that a delta codes
COPIED_S = 5.0e-9  # a byte of the image that is copied and hashed
UNPACK_S = {"xz": 3.0e-8, "zstd": 5.5e-9}  # a byte that a codec unpacks
WRITE_S = 5.0e-8  # a byte into flash: 20 MB/s, what a cheap eMMC takes; not measured
SPREAD = 40  # bytes of a program that one byte of delta stands for, where most of the image is copied
# What a second of the device's work, or a byte written to its flash, is worth in bytes of radio.
SECOND_IN_BYTES = 1024
FLASH_IN_BYTES = 0.001


class Way(StrEnum):
    """How the bytes travel."""

    FULL = "full"
    PACKED = "packed"
    DELTA = "delta"
    CHAIN = "chain"


class Passed(StrEnum):
    """Why a way was not taken: said by the server when it offers, or by the device that tried."""

    NOT_MADE = "not_made"  # not there yet, or not for this base
    UNKNOWN_BASE = "unknown_base"  # what the device runs is none of the images that are known
    NOT_SMALLER = "not_smaller"  # not below max_ratio of the compressed full image
    EVICTED = "evicted"  # gave way to others within the budget
    FAILED = "failed"  # it could not be made
    MEMORY = "memory"  # takes more than the device gives
    CODEC = "codec"  # needs what the device does not have
    ROOM = "room"  # takes more disk than is free
    TIME = "time"  # would keep the device at work for too long
    BASE = "base"  # starts from another image than the one that runs
    DOWNLOAD = "download"  # could not be fetched
    BROKEN = "broken"  # did not make the image that was signed


@dataclass(frozen=True, slots=True)
class Image:
    """What is to be installed; bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A file that spares bytes: a delta (`base_sha256` says from what), or the full image packed (`kind` is
    its codec). Sizes, memory and scratch in bytes."""

    kind: str
    sha256: str
    size: int
    target_sha256: str
    target_size: int
    base_sha256: str = ""
    memory: int = 0
    scratch: int = 0
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Means:
    """What a device gives for an update. None: it did not say."""

    memory: int | None = None
    codecs: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """One way, and what it costs. Bytes, but for `seconds`."""

    way: Way
    pieces: tuple[Piece, ...]
    bytes: int
    memory: int
    scratch: int
    flash: int
    seconds: float

    @property
    def worth(self) -> float:
        """All of it in bytes of radio: what `decide` compares deltas and chains by."""
        return self.bytes + self.seconds * SECOND_IN_BYTES + self.flash * FLASH_IN_BYTES


@dataclass(frozen=True, slots=True)
class Decision:
    """The way to go, the full image to fall back to, why not the others, and a sentence."""

    cost: Cost
    full: Cost
    passed: Mapping[Way, Passed] = field(default_factory=dict)
    words: str = ""


# --- what each way costs ---------------------------------------------------------------------------------


def whole(size: int) -> Cost:
    """The full image as it is."""
    return Cost(Way.FULL, (), size, 0, 0, size, SLOWER * COPIED_S * size + WRITE_S * size)


def packed(piece: Piece) -> Cost:
    """The full image, compressed."""
    size = piece.target_size
    seconds = SLOWER * (UNPACK_S[piece.kind] + COPIED_S) * size + WRITE_S * size
    return Cost(Way.PACKED, (piece,), piece.size, piece.memory, piece.scratch, size, seconds)


def by_delta(*hops: Piece) -> Cost:
    """One delta, or several one behind the other. They stand in a file until they are applied; what is
    between them is written and read once more."""
    between = [piece.target_size for piece in hops[:-1]]
    held = max((read + written for read, written in pairwise([*between, 0])), default=0)
    return Cost(
        Way.CHAIN if len(hops) > 1 else Way.DELTA,
        hops,
        sum(piece.size for piece in hops),
        max(piece.memory for piece in hops),
        held + max(piece.scratch for piece in hops) + sum(piece.size for piece in hops),
        sum(piece.target_size + piece.scratch + piece.size for piece in hops),
        sum(_applied(piece) for piece in hops),
    )


def _applied(piece: Piece) -> float:
    """Seconds: a delta's own bytes say how much of the image is coded, the rest is copied."""
    coded = min(piece.target_size, piece.size * SPREAD)
    return SLOWER * (CODED_S * coded + COPIED_S * piece.target_size) + WRITE_S * piece.target_size


def chain(base_sha256: str, target_sha256: str, deltas: Iterable[Piece]) -> Cost | None:
    """The cheapest chain of two to `MOST_HOPS` deltas; None where there is none."""
    leaving: dict[str, list[Piece]] = {}
    for piece in sorted(deltas, key=lambda piece: (piece.size, piece.sha256)):
        leaving.setdefault(piece.base_sha256, []).append(piece)
    ends: list[Cost] = []
    reached: dict[str, Cost | None] = {base_sha256: None}
    for _ in range(MOST_HOPS):
        further: dict[str, Cost | None] = {}
        for at, so_far in reached.items():
            for piece in leaving.get(at, ()):
                cost = by_delta(*(so_far.pieces if so_far else ()), piece)
                known = further.get(piece.target_sha256)
                if known is None or cost.worth < known.worth:
                    further[piece.target_sha256] = cost
        end = further.pop(target_sha256, None)  # the first one is the direct delta: no chain
        ends += [end] if end is not None and end.way is Way.CHAIN else []
        reached = further
    return min(ends, key=lambda cost: cost.worth, default=None)


# --- which one -------------------------------------------------------------------------------------------


def decide(
    target: Image,
    pieces: Collection[Piece],
    base_sha256: str | None,
    means: Means,
    max_ratio: float = MAX_RATIO,
    others: Collection[Piece] = (),
    missing: Passed = Passed.NOT_MADE,
) -> Decision:
    """How a device that runs `base_sha256` gets this image. `pieces`: what there is to make it from;
    `others`: deltas between any images of its type, for a chain; `missing`: why there is no delta, where
    there is none."""
    fulls = [whole(target.size), *(packed(piece) for piece in pieces if not piece.base_sha256)]
    honest = min(cost.bytes for cost in fulls)
    passed: dict[Way, Passed] = {}
    full = _full(fulls, means, passed)
    direct = [by_delta(piece) for piece in pieces if piece.base_sha256 and piece.base_sha256 == base_sha256]
    if not direct:
        passed[Way.DELTA] = missing if base_sha256 else Passed.UNKNOWN_BASE
    most = max_ratio * honest
    found = [cost for cost in direct if _fits(cost, means, most, passed)]
    if base_sha256 and means.memory is not None:
        usable = [piece for piece in others if _unable(by_delta(piece), means) is None]
        long = chain(base_sha256, target.sha256, usable)
        found += [long] if long is not None and _fits(long, means, most, passed) else []
    best = min(found, key=lambda cost: (cost.worth, len(cost.pieces)), default=full)
    if best.way is not Way.DELTA and any(cost.way is Way.DELTA for cost in found):
        passed[Way.DELTA] = Passed.NOT_SMALLER
    passed.pop(best.way, None)
    return Decision(best, full, passed, _words(best, honest, passed))


def _full(fulls: list[Cost], means: Means, passed: dict[Way, Passed]) -> Cost:
    """The smallest form of the full image that the device can take; of equal ones the quickest."""
    able = [cost for cost in fulls if cost.way is Way.FULL or _unable(cost, means) is None]
    for cost in fulls:
        if cost.way is Way.PACKED and (why := _unable(cost, means)) is not None:
            passed[Way.PACKED] = why
    best = min(able, key=lambda cost: (cost.bytes, cost.seconds))
    if best.way is Way.PACKED:
        passed.pop(Way.PACKED, None)
    elif len(fulls) == 1:
        passed[Way.PACKED] = Passed.NOT_MADE
    return best


def _fits(cost: Cost, means: Means, most: float, passed: dict[Way, Passed]) -> bool:
    why = Passed.NOT_SMALLER if cost.bytes >= most else _unable(cost, means)
    if why is not None:
        passed[cost.way] = why
    return why is None


def _unable(cost: Cost, means: Means) -> Passed | None:
    """Why this device cannot go this way. Of a delta a device that told nothing is its own judge."""
    if cost.way is Way.PACKED and (means.codecs is None or cost.pieces[0].kind not in means.codecs):
        return Passed.CODEC
    if means.memory is not None and cost.memory > means.memory:
        return Passed.MEMORY
    return Passed.TIME if cost.seconds > MOST_SECONDS else None


_WHY = {
    Passed.NOT_MADE: "is not there",
    Passed.UNKNOWN_BASE: "starts from what it runs",
    Passed.NOT_SMALLER: "does not save enough",
    Passed.EVICTED: "gave way to others in the cache",
    Passed.FAILED: "could not be made",
    Passed.MEMORY: "takes more memory than it gives",
    Passed.CODEC: "needs what it does not have",
    Passed.ROOM: "takes more disk than is free",
    Passed.TIME: "takes too long to apply",
    Passed.BASE: "starts from another image",
    Passed.DOWNLOAD: "could not be fetched",
    Passed.BROKEN: "does not make the signed image",
}


def _words(cost: Cost, honest: int, passed: Mapping[Way, Passed]) -> str:
    share = f"{100 * cost.bytes / honest:.3g} % of the compressed full image" if honest else "nothing"
    said = f"{_named(cost)}: {cost.bytes} bytes, {share}"
    reasons = [
        f"no {way} {_WHY[why]}" if why is Passed.UNKNOWN_BASE else f"a {way} {_WHY[why]}"
        for way, why in passed.items()
        if way is not Way.PACKED
    ]
    return "; ".join([said, *reasons])


def _named(cost: Cost) -> str:
    if cost.way is Way.PACKED:
        return f"packed by {cost.pieces[0].kind}"
    return f"chain of {len(cost.pieces)}" if cost.way is Way.CHAIN else cost.way.value
