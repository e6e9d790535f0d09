"""Bad input, for one patch and for layers: a clear error before a byte is written, or an honest fallback.

What is cut at every byte, flipped, or said by a layered header that lies is in test_delta.py and
test_layers_bad.py.
"""

import hashlib
import importlib.util
import mmap
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from skylift.firmware import delta, layered, layers, native, purepython, skd2
from skylift.firmware.native import DeltaError

from .conftest import rebuilt

CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance" / "delta"
HEAD = skd2.HEADER
FIELDS = {  # of the header: place and shape
    "kind": (4, "<B"),
    "blocks": (5, "<B"),
    "matches": (6, "<H"),
    "prime": (8, "<H"),
    "base_size": (10, "<I"),
    "target_size": (14, "<I"),
    "body": (18, "<I"),
    "base_crc": (22, "<I"),
    "target_crc": (26, "<I"),
}

pytestmark = pytest.mark.usefixtures("core")  # it makes patches


@pytest.fixture(params=["core", "python"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Patches are made by the core and applied by either decoder."""
    if request.param == "python":
        monkeypatch.setattr(native, "_library", lambda: None)
    return str(request.param)


@pytest.fixture(scope="module")
def programs() -> Any:
    """conformance/delta/make.py, for its synthetic programs."""
    spec = importlib.util.spec_from_file_location("make_vectors", CONFORMANCE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def small(programs: Any) -> tuple[bytes, bytes, bytes]:
    old, new = programs.program("thumb", 12, -1), programs.program("thumb", 12, 4)
    return old, new, native.make(old, new, "mcu-16k", arch="thumb").patch


def resealed(patch: bytes, **changed: int) -> bytes:
    """With other words in its header, and a checksum that is right."""
    body = bytearray(patch)
    for name, value in changed.items():
        at, shape = FIELDS[name]
        struct.pack_into(shape, body, at, value)
    struct.pack_into("<I", body, HEAD.size - 4, zlib.crc32(body[: HEAD.size - 4]))
    return bytes(body)


# --- the base --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("decoder")
def test_a_base_that_differs_by_one_byte_is_refused(small: tuple[bytes, bytes, bytes]) -> None:
    old, _, patch = small
    written: list[bytes] = []
    for at in range(len(old)):
        other = old[:at] + bytes([old[at] ^ 1]) + old[at + 1 :]
        with pytest.raises(DeltaError, match="another image"):
            delta.rebuild(other, patch, written.append)
    assert written == []


# --- sizes that lie --------------------------------------------------------------------------------------

LIES = [
    ({"kind": 0x01}, "damaged"),
    ({"kind": 0x41}, "damaged"),
    ({"kind": 0x19}, "damaged"),
    ({"blocks": 2}, "damaged"),
    ({"matches": 65535}, "damaged"),
    ({"prime": 65}, "damaged"),
    ({"prime": 65535}, "damaged"),
    ({"base_size": 5}, "another image"),
    ({"base_size": 0xFFFFFFFF}, "damaged"),
    ({"target_size": 0xFFFFFFFF}, "damaged"),
    ({"target_size": 0xFFFFFF00}, "at most 65536"),
    ({"body": 0}, "header says"),
    ({"body": 0xFFFFFFFF}, "header says"),
]


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(("changed", "said"), LIES, ids=str)
def test_a_header_that_lies_is_refused_before_a_byte_is_written(
    changed: dict[str, int], said: str, small: tuple[bytes, bytes, bytes]
) -> None:
    written: list[bytes] = []
    with pytest.raises(DeltaError, match=said):
        delta.rebuild(small[0], resealed(small[2], **changed), written.append, max_size=65536)
    assert written == []


@pytest.mark.parametrize(
    "changed", [{"target_size": 1}, {"target_size": 3000}, {"matches": 0}, {"matches": 9}]
)
def test_both_decoders_refuse_a_script_that_its_header_contradicts(
    changed: dict[str, int], small: tuple[bytes, bytes, bytes], decoder: str
) -> None:
    with pytest.raises(DeltaError):
        delta.rebuild(small[0], resealed(small[2], **changed), lambda piece: None, max_size=65536)
    assert decoder


@pytest.mark.parametrize("profile", list(native.PROFILES))
def test_python_refuses_a_size_that_no_patch_of_that_length_can_tell(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: it would be at work for hours. What is honest is never near that."""
    old = Random(1).randbytes(60_000)
    patch = native.make(old, old[:30_000] + b"new" + old[30_000:], profile).patch
    monkeypatch.setattr(native, "_library", lambda: None)
    monkeypatch.setattr(purepython, "_Walk", None)  # nothing is begun
    with pytest.raises(DeltaError, match="cannot tell so many"):
        delta.rebuild(old, resealed(patch, target_size=0x7FFFFFFF), lambda piece: None)


@pytest.mark.parametrize(
    ("profile", "size"),
    [("mcu-16k", 1 << 20), ("mcu-64k", 1), ("linux-16m", 1 << 20), ("linux-16m", (4 << 20) + 4096)],
)
def test_the_shortest_honest_patch_may_tell_what_it_tells(profile: str, size: int) -> None:
    image = bytes(size)
    facts = skd2.read_header(native.make(image, image, profile).patch)
    assert facts.target_size * 1.2 < skd2.most_told(facts)


def test_a_patch_cannot_want_four_gigabytes(small: tuple[bytes, bytes, bytes]) -> None:
    """Whatever its header says: memory follows from the profile, and a larger image is only a longer one."""
    for profile, memory in enumerate(delta.MEMORY.values(), 1):
        for changed in ({}, {"target_size": 0xFFFFFF00}, {"target_size": 0xFFFFFF00, "matches": 300}):
            told = resealed(small[2], kind=profile << 4 | 1, **changed)
            assert delta.read_header(told).memory == memory
    head = layers.read_head(layered.make(b"a" * 9000, b"b" * 9000).patch)
    wanting = layers.write_head(
        layers.Head(*[getattr(head, name) for name in head.__slots__][:4], 4 << 30, *_rest(head))
    )
    with pytest.raises(DeltaError, match=r"takes \d+ bytes of memory, at most"):
        delta.rebuild(b"a" * 9000, wanting, lambda piece: None)


def _rest(head: layers.Head) -> list[Any]:
    return [getattr(head, name) for name in head.__slots__][5:]


class _Bits:
    """The coder of the format, writing: enough for a script that no encoder would write."""

    def __init__(self) -> None:
        self._low, self._range, self._bytes = 0, 0xFFFFFFFF, 4
        self._counters = [[32768] * 68 for _ in range(11)]

    def _plain(self, kind: int, at: int, bit: int) -> None:
        p = self._counters[kind][at]
        bound = self._range * min(max(p, 512), 65024) >> 16
        self._low, self._range = (self._low, bound) if bit else (self._low + bound, self._range - bound)
        self._counters[kind][at] = p + ((65535 - p) >> 4) if bit else p - (p >> 4)
        while self._range < 1 << 24:
            self._low, self._range, self._bytes = self._low << 8, self._range << 8, self._bytes + 1

    def _flat(self, bit: int) -> None:
        bound = self._range >> 1
        self._low, self._range = (self._low, bound) if bit else (self._low + bound, self._range - bound)
        while self._range < 1 << 24:
            self._low, self._range, self._bytes = self._low << 8, self._range << 8, self._bytes + 1

    def number(self, kind: int, value: int) -> None:
        n = (value + 1).bit_length() - 1
        for k in range(n + (n < 32)):
            self._plain(kind, k, int(k < n))
        for k in range(n):
            bit = (value + 1) >> (n - 1 - k) & 1
            if k:
                self._flat(bit)
            else:
                self._plain(kind, 33 + n, bit)

    def body(self) -> bytes:
        return self._low.to_bytes(self._bytes, "big")


@pytest.mark.usefixtures("decoder")
def test_a_patch_cannot_keep_a_decoder_busy_with_matches_of_nothing() -> None:
    """Five kilobytes that tell of a million of them, for an image of one byte: the first is refused."""
    bits = _Bits()
    for kind in (3, 3):  # no segments
        bits.number(kind, 0)
    bits.number(7, 1_000_000)
    for _ in range(3000):
        for kind in (8, 9, 10):
            bits.number(kind, 0)
    body = bits.body() + bytes(5000)
    old = b"base"
    digests = [hashlib.sha256(each).digest()[:16] for each in (old, b"x")]
    head = HEAD.pack(b"SKD2", 0x10, 0, 0, 0, 4, 1, len(body), zlib.crc32(old), 0, *digests, 0)
    with pytest.raises(DeltaError, match="damaged"):
        delta.rebuild(old, resealed(head) + body, lambda piece: None)


# --- images of two machines ------------------------------------------------------------------------------


def other_machine(programs: Any) -> tuple[bytes, bytes]:
    return programs.program("thumb", 60, -1), programs.program("riscv", 60, -1)


def changes_in_the_middle(programs: Any) -> tuple[bytes, bytes]:
    """Half for one machine, half for another; both halves changed."""
    halves = [(programs.program(arch, 60, -1), programs.program(arch, 60, 9)) for arch in ("thumb", "riscv")]
    return halves[0][0] + halves[1][0], halves[0][1] + halves[1][1]


@pytest.mark.parametrize("profile", ["mcu-16k", "mcu-64k", "linux-16m"])
@pytest.mark.parametrize("pair", [other_machine, changes_in_the_middle], ids=lambda pair: pair.__name__)
def test_two_machines_go_there_and_back_and_cost_no_more_than_knowing_nothing(
    pair: Callable[[Any], tuple[bytes, bytes]], profile: str, programs: Any
) -> None:
    old, new = pair(programs)
    made, blind = native.make(old, new, profile), native.make(old, new, profile, arch="plain")
    assert rebuilt(old, made.patch) == new
    assert len(made.patch) <= len(blind.patch) * 1.02 + 20
    if pair is other_machine:
        assert made.arch == "plain", "nothing is predicted that only one of them has"


def elf(machine: int, body: bytes) -> bytes:
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 120 + len(body), 0, 64, 56, 1, 64, 1, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 120 + len(body), 120 + len(body), 4096)
    return head + body + bytes(64)


def test_layers_of_a_program_for_another_machine_go_there_and_back(programs: Any) -> None:
    """The same image with the same program built for aarch64, then for x86-64, beside one that stays."""
    stays = Random(1).randbytes(70_000)
    arm, intel = programs.program("aarch64", 900, -1), programs.program("x86-64", 900, -1)
    old, new = elf(183, stays) + elf(183, arm), elf(183, stays) + elf(62, intel)
    made = layered.make(old, new)
    assert rebuilt(old, made.patch) == new
    assert len(made.patch) < len(zlib.compress(intel, 9)) * 1.05 + 1000, "no more than the program itself"


def test_layers_of_an_image_whose_machine_changes_in_the_middle_go_there_and_back(programs: Any) -> None:
    old, new = changes_in_the_middle(programs)
    made = layered.make(old, new)
    assert rebuilt(old, made.patch) == new
    assert len(made.patch) < 0.5 * len(new)


# --- sizes -----------------------------------------------------------------------------------------------


@contextmanager
def sparse(path: Path, size: int, *written: tuple[int, bytes]) -> Iterator[mmap.mmap]:
    """A file of holes, mapped."""
    with path.open("w+b") as file:
        file.truncate(size)
        for at, body in written:
            file.seek(at)
            file.write(body)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            yield mapped


def test_one_patch_of_two_gigabytes_is_refused_by_name_and_at_once(tmp_path: Path) -> None:
    with sparse(tmp_path / "old", 1 << 31) as old, pytest.raises(DeltaError, match="2 GiB and more"):
        native.make(old, b"new", "linux-16m")
    with sparse(tmp_path / "old", 1 << 31) as new, pytest.raises(DeltaError, match="2 GiB and more"):
        native.make(b"old", new, "mcu-16k")
    with pytest.raises(DeltaError, match="2 GiB and more"), sparse(tmp_path / "old", 1 << 31) as old:
        native.runs(old, b"new")
