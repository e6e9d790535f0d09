"""Inputs made from seeds, fed, and judged. The same seed makes the same inputs."""

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

NAMES = ("_type", "device_id", "version", "keyid", "custom", "targets", "keys", "roles", "expires", "meta")
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, 0.5, 1e308, "", "a", "\u0430", "\ud800"),
    *([], {}, [[]], [{}], {"": None}, "x" * 5000, "../x", "a/b/c", "2026-01-01T00:00:00Z", "\n", "\0"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """`share`: of a thousand inputs. `text`: the seeds are JSON."""

    name: str
    share: int
    seeds: tuple[bytes, ...]
    feed: Callable[[bytes], bool]
    text: bool = False
    mend: Callable[[bytes], bytes] = field(default=lambda body: body)


@dataclass(slots=True)
class Findings:
    """What a run found. `uncaught`: target, input, what it raised."""

    inputs: int = 0
    installed: int = 0
    uncaught: list[tuple[str, bytes, str]] = field(default_factory=list)
    slowest_ms: dict[str, float] = field(default_factory=dict)


def run(targets: Mapping[str, Target], inputs: int, seed: int) -> Findings:
    """Feed so many inputs, at least one and not less than its share to every target."""
    found = Findings()
    whole = sum(target.share for target in targets.values())
    for target in targets.values():
        chance = random.Random(f"{seed}/{target.name}")
        for _ in range(-(-inputs * target.share // whole)):
            try_one(target, mutated(target, chance), found)
    return found


def try_one(target: Target, body: bytes, found: Findings) -> None:
    """One input; what comes of it is counted."""
    begun = time.perf_counter()
    try:
        found.installed += target.feed(body)
    except (Exception, RecursionError) as e:  # noqa: BLE001 - whatever a parser did not promise is a find
        found.uncaught.append((target.name, body, f"{type(e).__name__}: {e}"[:200]))
    took = 1000 * (time.perf_counter() - begun)
    found.slowest_ms[target.name] = max(found.slowest_ms.get(target.name, 0.0), took)
    found.inputs += 1


def stem(name: str) -> str:
    """How the files of a target's finds begin."""
    return re.sub(r"[^a-z]+", "-", name.lower())


# --- mutation --------------------------------------------------------------------------------------------


def mutated(target: Target, chance: random.Random) -> bytes:
    """A seed, changed in one to four places; JSON half of the time as JSON."""
    body = chance.choice(target.seeds)
    if target.text and chance.random() < 0.5:
        return _as_json(body, chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        body = chance.choice(_DEEDS)(body, chance)
    return target.mend(body) if chance.random() < 0.9 else body


def _as_json(body: bytes, chance: random.Random) -> bytes:
    tree = json.loads(body)
    for turn in range(chance.choice((1, 1, 2))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = chance.choice(places)
        odd = deepcopy(chance.choice(ODD))  # else the next mutant would begin with this one
        match chance.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(NAMES)] = odd
            case 2:
                for _ in range(chance.choice((3, 30, 400))):
                    odd = [odd] if chance.random() < 0.5 else {"a": odd}
                holder[key] = odd
            case 3 if isinstance(holder, list) and not turn:  # many of many would be gigabytes
                holder.extend([holder[key]] * chance.choice((1, 70, 600)))
            case _:
                holder[key] = odd
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=chance.random() < 0.7).encode(
        "utf-8", "surrogatepass"
    )


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                yield node, key
                waiting.append(node[key])


def _flip(body: bytes, chance: random.Random) -> bytes:
    if not body:
        return b"\0"
    at = chance.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << chance.randrange(8))]) + body[at + 1 :]


def _insert(body: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(body))
    return body[:at] + chance.randbytes(chance.choice((1, 2, 8))) + body[at:]


def _delete(body: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(body))
    return body[:at] + body[at + chance.choice((1, 2, 8, 64)) :]


def _cut(body: bytes, chance: random.Random) -> bytes:
    return body[: chance.randint(0, len(body))]


def _repeat(body: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(body))
    return body[:at] + body[at : at + 40] * chance.choice((2, 10, 100)) + body[at:]


def _number(body: bytes, chance: random.Random) -> bytes:
    size = chance.choice((1, 2, 4, 8))
    value = chance.choice((0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1), (1 << (8 * size - 1)) - 1))
    at = chance.randint(0, min(len(body), 128))
    return body[:at] + value.to_bytes(size, chance.choice(("little", "big"))) + body[at + size :]


_DEEDS = (_flip, _insert, _delete, _cut, _repeat, _number, _number)
