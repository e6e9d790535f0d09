"""Layered deltas on devices that lack something, cut, flipped, and with descriptions that lie."""

from dataclasses import replace
from typing import Any

import pytest

from skylift.firmware import assemble, codecs, delta, layered, layers, native
from skylift.firmware.layers import COPY, FILL, HELD, NEW, PACKED, Head, Part, Span
from skylift.firmware.native import DeltaError

from .conftest import gzipped, rebuilt, words

pytestmark = pytest.mark.usefixtures("core")  # it makes layers


def test_a_delta_names_the_library_it_needs_and_is_refused_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = gzipped(words(1, 90_000)), gzipped(words(1, 90_000) + b"more")
    patch = layered.make(old, new).patch
    assert "deflate 9 15 8" in delta.read_header(patch).needs
    monkeypatch.setattr(codecs, "available", lambda name: not name.startswith("deflate 9"))
    written: list[bytes] = []
    with pytest.raises(DeltaError, match="needs deflate 9 15 8"):
        delta.rebuild(old, patch, written.append)
    assert written == []


def test_another_version_of_a_library_is_another_library() -> None:
    assert not codecs.available("zstd 15 0.0.1")
    assert not codecs.available("lz4 0.0.1")
    assert not codecs.available("deflate 9 15 8 7")
    assert not codecs.available("nonsense")
    for name in ("deflate 99 15 8", "xz 6 7", "xzs 6 1", "zlib 9 99 99"):
        with pytest.raises(DeltaError):
            packed(name, b"x" * 99)


def packed(name: str, body: bytes) -> bytes:
    packer = codecs.packer(name)
    return packer.compress(body) + packer.flush()


@pytest.fixture(scope="module")
def small() -> tuple[bytes, bytes, bytes]:
    old, new = (
        gzipped(words(1, 30_000)),
        gzipped(words(1, 20_000) + b"other" * 400 + words(1, 30_000)[20_000:]),
    )
    return old, new, layered.make(old, new).patch


def test_a_base_that_differs_by_one_byte_is_refused(small: tuple[bytes, bytes, bytes]) -> None:
    old, _, patch = small
    for at in range(0, len(old), 997):
        with pytest.raises(DeltaError, match="another image"):
            rebuilt(old[:at] + bytes([old[at] ^ 1]) + old[at + 1 :], patch)


def test_a_delta_cut_at_any_byte_is_refused(small: tuple[bytes, bytes, bytes]) -> None:
    old, _, patch = small
    for length in range(len(patch)):
        with pytest.raises(DeltaError):
            rebuilt(old, patch[:length])


def test_any_byte_flipped_is_refused_or_makes_the_very_image(small: tuple[bytes, bytes, bytes]) -> None:
    old, new, patch = small
    for at in range(len(patch)):
        for bits in (0x01, 0x80):
            bad = patch[:at] + bytes([patch[at] ^ bits]) + patch[at + 1 :]
            try:
                assert rebuilt(old, bad) == new
            except DeltaError:
                continue


def resealed(patch: bytes, **changed: Any) -> bytes:
    head = layers.read_head(patch)
    return layers.write_head(replace(head, **changed)) + patch[head.length :]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"memory": 4 << 30}, "at most"),
        ({"scratch": 4 << 30}, "at most"),
        ({"scratch": 5 << 30}, "at most"),
        ({"plan_size": 5}, "another size"),
        ({"plan_size": 1 << 30}, "at most"),
        ({"memory": 100}, "more memory than its header says"),
        ({"scratch": 1}, "more memory than its header says"),
        ({"target_size": 1 << 41}, "at most"),
        ({"target_size": 77}, "do not add up|larger than"),
        ({"needs": ()}, "does not name"),
        ({"body": 5}, "header says"),
    ],
    ids=lambda value: str(value),
)
def test_a_header_that_lies_is_refused_before_a_byte_is_written(
    small: tuple[bytes, bytes, bytes], changed: dict[str, Any], said: str
) -> None:
    written: list[bytes] = []
    with pytest.raises(DeltaError, match=said):
        delta.rebuild(small[0], resealed(small[2], **changed), written.append, max_memory=64 << 20)
    assert written == []


SPAN, PART = Span(0, 50, None, 50), Part(0, 50, 10, 5, False)
HEAD = Head(100, 110, bytes(32), bytes(32), 64 << 20, 1 << 20, 0, 0, 5, ())
STEPS = [(COPY, 0, 100), (NEW, 0, 10)]


@pytest.mark.parametrize(
    ("spans", "parts", "steps"),
    [
        ([Span(60, 50, None, 50)], [PART], STEPS),
        ([SPAN], [Part(10, 50, 10, 5, False)], STEPS),
        ([SPAN], [Part(0, 50, 10, 6, False)], STEPS),
        ([SPAN], [Part(0, 50, 10, 5, True)], STEPS),
        ([SPAN], [PART], [(COPY, 1, 100), (NEW, 0, 10)]),
        ([SPAN], [PART], [(COPY, 0, 100), (FILL, 256, 10)]),
        ([SPAN], [PART], [(COPY, 0, 99), (NEW, 0, 10)]),
        ([SPAN], [PART], [(COPY, 0, 100), (NEW, 0, 9), (HELD, 0, 1)]),
        ([SPAN], [PART], [(COPY, 0, 100), (NEW, 0, 10), (COPY, 0, 0)]),
        ([SPAN], [PART], [(COPY, 0, 100), (PACKED, 10, 20), (NEW, 0, 10)]),
        ([SPAN], [PART], [(COPY, 0, 100), (PACKED, 10, 5), (NEW, 0, 10)]),
        ([SPAN], [PART], [(COPY, 0, 100), (PACKED, 5, 20), (PACKED, 5, 10), (NEW, 0, 10)]),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(spans: Any, parts: Any, steps: Any) -> None:
    names = ["deflate 9 15 8"]
    head = replace(HEAD, needs=tuple(names))
    layers.judge(layers.plan_of(names, [SPAN], [PART], STEPS), head)
    with pytest.raises(DeltaError):
        layers.judge(layers.plan_of(names, spans, parts, steps), head)


def test_a_description_is_read_as_it_was_written() -> None:
    names = ["deflate", "deflate 9 15 8"]
    spans = [SPAN, Span(60, 20, "deflate", 300)]
    steps = [(COPY, 20, 70), (FILL, 255, 9), (COPY, 3, 16), (PACKED + 1, 15, 10), (NEW, 0, 10)]
    plan = layers.plan_of(names, spans, [PART], steps)
    packed, size = layers.write_plan(plan)
    head = replace(HEAD, needs=tuple(names), plan_packed=len(packed), plan_size=size)
    assert layers.read_plan(packed, head) == plan


def test_a_part_for_another_base_is_refused(small: tuple[bytes, bytes, bytes]) -> None:
    old, _, patch = small
    head = layers.read_head(patch)
    start = head.length + head.plan_packed
    other = native.make(b"x" * 99, b"y" * 99, "mcu-16k").patch
    body = other + bytes(head.body - len(other)) if len(other) < head.body else other[: head.body]
    with pytest.raises(DeltaError):
        rebuilt(old, patch[:start] + body)
    assert assemble.missing(head) == []
