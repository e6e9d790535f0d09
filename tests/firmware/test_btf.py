"""A kernel's types: opened, numbers are names; closed, they are the very numbers again, or it is said."""

import base64
import json
import lzma
import struct
import zlib
from pathlib import Path
from random import Random

import pytest

from skylift.firmware import btf, codecs, containers, delta, layered, layers, native
from skylift.firmware.native import DeltaError

VECTORS = Path(__file__).resolve().parents[2] / "conformance" / "delta" / "layers.json"
NAME = "a kernel's types, numbered anew"
pytestmark = pytest.mark.usefixtures("core")  # it opens them


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    """Two small kernels with the same types in another order."""
    case = next(case for case in json.loads(VECTORS.read_text()) if case["name"] == NAME)
    old, new = (zlib.decompress(base64.b64decode(case[name])) for name in ("base", "target"))
    return old, new


def described(kernel: bytes) -> bytes:
    (unit,) = containers.units(memoryview(kernel))
    return kernel[unit.at : unit.end]


def words(description: bytes) -> list[int]:
    size = struct.unpack_from("<I", description, 12)[0]
    return list(struct.unpack_from(f"<{size // 4}I", description, 24))


def test_every_kind_of_type_closes_to_the_bytes_it_was_opened_from(pair: tuple[bytes, bytes]) -> None:
    for kernel in pair:
        before = described(kernel)
        opened = native.turned("open", before)
        assert opened != before
        assert len(opened) == len(before)
        assert native.turned("close", opened) == before


def test_types_numbered_anew_read_alike_when_they_are_opened(pair: tuple[bytes, bytes]) -> None:
    ours, theirs = (described(kernel) for kernel in pair)
    assert sorted(words(ours)) != sorted(words(theirs)), "numbers say nothing"
    ours, theirs = (native.turned("open", each) for each in (ours, theirs))
    assert sorted(words(ours)) == sorted(words(theirs)), "names do"


def test_two_kernels_types_cost_their_order_and_no_more(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    made = layered.make(old, new)
    assert (made.opened, made.closed) == (1, 0)
    assert layers.read_head(made.patch).needs == ("btf",)
    assert len(made.patch) * 5 < len(native.make(old, new, "linux-16m").patch)
    assert delta.apply_delta(old, made.patch) == new


def packed_kernel(kernel: bytes) -> bytes:
    """As ARM's that unpacks itself, with more than a megabyte in it."""
    chain = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 8 << 20}]
    body = b"".join(b"line %d\n" % (k * k) for k in range(80_000)) + kernel
    head = bytes(0x24) + b"\x18\x28\x6f\x01" + bytes(2008)
    return head + lzma.compress(body, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=chain) + b"and its end"


def test_the_types_in_a_kernel_that_unpacks_itself_are_opened_too(pair: tuple[bytes, bytes]) -> None:
    old, new = (packed_kernel(kernel) for kernel in pair)
    made = layered.make(old, new)
    packs, opens = layers.read_head(made.patch).needs
    assert (opens.split("|")[0], packs.split("|")[0]) == ("xz", f"xzs 6 {8 << 20}")
    assert opens.split("|")[1].startswith("btf ")
    assert len(made.patch) < 4000, "4,000 for what changed, not 20,000 for numbers"
    assert delta.apply_delta(old, made.patch) == new


@pytest.mark.parametrize(
    "name", ["xz|btf", "xz|btf 1", "xz|btf 1 x", "xz|zlib 1 2", "xz|btf 1 2|btf 3 4", "|btf 1 2"]
)
def test_a_chain_that_is_none_is_not_here(name: str) -> None:
    assert not codecs.available(name)


@pytest.mark.parametrize("pieces", [1, 100, 5000, 1 << 20])
def test_a_range_is_turned_however_the_pieces_fall(pair: tuple[bytes, bytes], pieces: int) -> None:
    kernel = pair[0]
    (unit,) = containers.units(memoryview(kernel))
    want = kernel[: unit.at] + native.turned("open", described(kernel)) + kernel[unit.end :]
    packed = lzma.compress(kernel)
    name = f"xz|btf {unit.at} {unit.size}"
    assert b"".join(codecs.opened(name, packed, len(kernel))) == want
    packer = codecs.packer(f"xzs 6 {8 << 20}|btf {unit.at} {unit.size}")
    step = range(0, len(want), pieces)
    back = b"".join(packer.compress(want[at : at + pieces]) for at in step) + packer.flush()
    assert lzma.decompress(back) == kernel


def test_a_range_beyond_what_a_block_holds_is_refused(pair: tuple[bytes, bytes]) -> None:
    kernel = pair[0]
    with pytest.raises(DeltaError, match="holds"):
        list(codecs.opened(f"xz|btf {len(kernel) - 50} 100", lzma.compress(kernel), len(kernel)))


def test_a_kernel_is_compared_in_one_piece_though_its_types_are_opened(pair: tuple[bytes, bytes]) -> None:
    made = layered.make(*pair)
    assert (made.parts, made.copied) == (1, 0), "addresses count across it"


def test_types_that_are_damaged_are_refused_and_the_kernel_compared_as_it_is(
    pair: tuple[bytes, bytes],
) -> None:
    old, new = pair
    (unit,) = containers.units(memoryview(new))
    bad = bytearray(new)
    bad[unit.at + 24 + 4 + 3] = 31  # a kind that nobody knows
    with pytest.raises(DeltaError, match="types is damaged"):
        native.turned("open", bytes(bad[unit.at : unit.end]))
    made = layered.make(old, bytes(bad))
    assert (made.opened, made.closed, made.parts) == (0, 1, 1)
    assert delta.apply_delta(old, made.patch) == bytes(bad)


def test_types_cut_at_any_place_are_refused(pair: tuple[bytes, bytes]) -> None:
    whole = described(pair[0])
    for size in (*range(64), *range(64, len(whole), 997)):
        for deed in ("open", "close"):
            with pytest.raises(DeltaError):
                native.turned(deed, whole[:size])


def test_a_name_of_nothing_does_not_close(pair: tuple[bytes, bytes]) -> None:
    opened = bytearray(native.turned("open", described(pair[0])))
    place = next(
        24 + 4 * k for k, word in enumerate(words(bytes(opened))) if word >> 26 == 0x2B and k % 3 == 0
    )
    opened[place] ^= 1
    with pytest.raises(DeltaError, match="types is damaged"):
        native.turned("close", bytes(opened))


def described_at_random(random: Random, furthest: int) -> bytes:
    """A hundred types that refer to types up to `furthest` places behind their own, and to few names."""
    records = bytearray()
    for k in range(100):
        name, kind = random.choice((0, 1, 5, 9)), random.choice((2, 8, 10, 7))
        records += struct.pack("<3I", name, kind << 24, random.randrange(max(1, k + 1 + furthest)))
    names = b"\0one\0two\0one\0".ljust(39, b"x") + b"\0"
    return struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, 1200, 1200, 40) + records + names


@pytest.mark.parametrize("seed", range(100))
def test_types_that_read_alike_keep_their_numbers(seed: int) -> None:
    body = described_at_random(Random(seed), 0)
    assert native.turned("close", native.turned("open", body)) == body


def test_types_without_a_name_that_refer_to_themselves_close_or_are_refused() -> None:
    refused = 0
    for seed in range(100):
        body = described_at_random(Random(seed), 30)
        try:
            native.turned("close", native.turned("open", body))
        except DeltaError:
            refused += 1
    assert 0 < refused < 100


def test_a_number_that_looks_like_a_name_is_refused() -> None:
    body = bytearray(described_at_random(Random(1), 0))
    for word in (0xAC000001, 0xEC000001):
        body[24:28] = struct.pack("<I", word)
        with pytest.raises(DeltaError):
            native.turned("open", bytes(body))


def test_only_what_may_be_a_kernels_is_found(pair: tuple[bytes, bytes]) -> None:
    whole = described(pair[0])
    assert [unit.size for unit in btf.units(memoryview(bytes(7) + whole + whole))] == [len(whole)] * 2
    assert not list(btf.units(memoryview(whole[:-1]))), "its end is missing"
    small = struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, 12, 12, 8) + bytes(20)
    assert not list(btf.units(memoryview(small))), "a module's"


def test_who_has_no_core_is_told_what_is_lacking(
    pair: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair
    patch = layered.make(old, new).patch
    assert codecs.available("btf")
    assert not codecs.available("btf 9")
    monkeypatch.setattr(native, "available", lambda: False)
    with pytest.raises(DeltaError, match="the patch needs btf"):
        delta.apply_delta(old, patch)
