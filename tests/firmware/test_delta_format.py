"""Our delta format: both decoders against the vectors, the predictors against each other, and bad patches."""

import base64
import hashlib
import importlib.util
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import missing
from skylift.firmware import delta, fields, mixing, native, purepython, skd2
from skylift.firmware.delta import DeltaError
from skylift.firmware.script import Script

VECTORS = Path(__file__).resolve().parents[2] / "conformance" / "delta"
CASES: list[dict[str, Any]] = json.loads((VECTORS / "vectors.json").read_text())
GOOD = [case for case in CASES if "error" not in case]
BAD = [case for case in CASES if "error" in case]
SAYS = {
    "damaged": "damaged",
    "cut": "ends before|damaged",
    "base": "another image",
    "result": "not the one|ends before|damaged",
}


def unpacked(case: dict[str, Any], name: str) -> bytes:
    return zlib.decompress(base64.b64decode(case[name]))


def _by_core(old: bytes, patch: bytes, size: int = 1 << 24, memory: int = 16 << 20) -> bytes:
    if not native.available():
        missing("the C core of deltas (gcc)")
    pieces: list[bytes] = []
    native.apply(old, patch, pieces.append, size, memory)
    return b"".join(pieces)


def _by_python(old: bytes, patch: bytes, size: int = 1 << 24, memory: int = 16 << 20) -> bytes:
    pieces: list[bytes] = []
    purepython.apply(old, patch, pieces.append)
    return b"".join(pieces)


Decode = Callable[..., bytes]
DECODERS = {"core": _by_core, "python": _by_python}


@pytest.fixture(params=DECODERS)
def decode(request: pytest.FixtureRequest) -> Decode:
    return DECODERS[request.param]


@pytest.fixture(scope="module")
def make() -> Any:
    """conformance/delta/make.py, for its synthetic programs."""
    spec = importlib.util.spec_from_file_location("make_vectors", VECTORS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture
def core() -> None:
    if not native.available():
        missing("the C core of deltas (gcc)")


# --- vectors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOOD, ids=lambda case: str(case["name"]))
def test_a_vector_makes_exactly_its_image(case: dict[str, Any], decode: Decode) -> None:
    header = delta.read_header(unpacked(case, "patch"))
    assert (header.profile, header.arch) == (case["profile"], case["arch"])
    assert decode(unpacked(case, "base"), unpacked(case, "patch")) == unpacked(case, "target")


@pytest.mark.parametrize("case", [c for c in BAD if c["error"] in SAYS], ids=lambda case: str(case["name"]))
def test_a_bad_vector_is_refused_for_its_reason(case: dict[str, Any], decode: Decode) -> None:
    with pytest.raises(DeltaError, match=SAYS[case["error"]]):
        decode(unpacked(case, "base"), unpacked(case, "patch"))


@pytest.mark.parametrize(
    ("error", "limits", "words"),
    [("limit", {"max_size": 100}, "at most 100"), ("memory", {"max_memory": 4096}, "at most 4096")],
)
def test_what_asks_for_more_than_it_may_have_is_refused_before_a_byte_is_written(
    error: str, limits: dict[str, int], words: str
) -> None:
    case = next(case for case in BAD if case["error"] == error)
    written: list[bytes] = []
    with pytest.raises(DeltaError, match=words):
        delta.rebuild(unpacked(case, "base"), unpacked(case, "patch"), written.append, **limits)
    assert written == []


@pytest.mark.usefixtures("core")
def test_the_encoder_is_deterministic_and_makes_the_vectors_again() -> None:
    for case in GOOD:
        base, target = unpacked(case, "base"), unpacked(case, "target")
        made = native.make(base, target, case["profile"], arch=case["arch"])
        assert made.patch == unpacked(case, "patch"), case["name"]


# --- predictors ------------------------------------------------------------------------------------------


def _words(form: fields.Form, random: Random) -> int:
    length, _, _, mask, value, *_ = form
    return (random.getrandbits(8 * length) & ~mask) | value


@pytest.mark.parametrize("arch", range(1, 8), ids=lambda arch: native.ARCHES[arch])
def test_every_predictor_writes_what_it_reads(arch: int) -> None:
    """A word, taken apart and put together for the same place and target, says the same."""
    random, seen = Random(arch), 0
    for form in fields.MACHINES[arch].forms:
        length, _, _, mask, value, get, put = form
        for _ in range(400):
            word = _words(form, random)
            around = bytearray(random.randbytes(64))
            if arch == 4:  # the opcode stands before the field
                around[30:32] = random.choice([b"\x90\xe8", b"\x0f\x84", b"\x8b\x05"])
            around[32 : 32 + length] = word.to_bytes(length, "little")
            pc = 0x40000000 + random.randrange(0, 1 << 20, 4)
            got = get(fields.View(around, 32, 32, 32, pc), word)
            if got is None:
                continue
            target, back = got
            origin = pc if back is None else pc - back if back else 0
            same = put(word, origin, target)
            assert (
                same & ((1 << 8 * length) - 1) == word
                or get(fields.View(around, 32, 32, 32, pc), same) == got
            ), (native.ARCHES[arch], hex(word))
            assert same & mask == value
            seen += 1
    assert seen > 500


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("arch", native.ARCHES[1:])
def test_moved_code_costs_hardly_anything(arch: str, make: Any) -> None:
    """Something put into one of 200 functions moves most calls and every address behind it."""
    base, target = make.program(arch, 200, -1), make.program(arch, 200, 60)
    made = native.make(base, target, "mcu-64k", arch=arch)
    blind = native.make(base, target, "mcu-64k", arch="plain")
    knowing, not_knowing = (len(patch) - skd2.HEADER.size for patch in (made.patch, blind.patch))
    assert knowing < (0.2 if arch in ("thumb", "arm", "aarch64") else 0.9) * not_knowing
    assert _by_core(base, made.patch) == target


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("first", [b"\x13\0\0\0", b"\xe9\x02\0\0"], ids=["none", "one that is none"])
def test_a_program_without_a_table_of_segments_is_told_where_it_is_loaded(
    first: bytes, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of RISC-V and Xtensa the decoder looks for Espressif's table in the base. Where it finds none, what the
    encoder knows of the base holds: else no address of it is predicted right."""
    monkeypatch.setitem(make.LOADED_AT, "riscv", 0x80000000)
    base, target = (first + make.program("riscv", 200, grown)[36:] for grown in (-1, 60))
    made = native.make(base, target, "mcu-64k", arch="riscv")
    assert _by_core(base, made.patch) == _by_python(base, made.patch) == target
    assert made.fields_moved - made.fields_right < 5


@pytest.mark.usefixtures("core")
def test_an_image_whose_place_is_not_found_is_tried_as_if_loaded_like_the_other(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target has no table of addresses any more, by which the place is found."""
    loaded = 0x80000000
    monkeypatch.setitem(make.LOADED_AT, "riscv", loaded)
    old, new = make.program("riscv", 200, -1)[32:], make.program("riscv", 200, 60)[32:-800]

    def told(base: int, target: int) -> int:
        segments = [(0, len(old), base)], [(0, len(new), target)]
        return len(native.make(old, new, "mcu-64k", arch="riscv", segments=segments).patch)

    made = native.make(old, new, "mcu-64k", arch="riscv")
    assert _by_core(old, made.patch) == _by_python(old, made.patch) == new
    assert len(made.patch) == min(told(loaded, loaded), told(0, 0)) < told(loaded, 0)


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("profile", list(native.PROFILES))
def test_where_predictions_come_out_wrong_nothing_is_predicted(
    profile: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header in front grew; the program is the very same, but for the file it stands elsewhere."""
    monkeypatch.setitem(make.LOADED_AT, "riscv", 0x80000000)
    body = make.program("riscv", 200, -1)[32:]
    old, new = body, bytes(range(64)) + body
    segments = [(0, len(old), 0x80000000)], [(0, len(new), 0x80000000)]
    sure = native.make(old, new, profile, arch="riscv", segments=segments)
    made, blind = (native.make(old, new, profile, arch=a, segments=segments) for a in (None, "plain"))
    assert _by_core(old, made.patch) == new
    assert len(made.patch) == len(blind.patch) < len(sure.patch)


@pytest.mark.usefixtures("core")
def test_no_segment_moves_further_than_its_32_bits_tell(make: Any) -> None:
    """Else decoders that count in 32 bits and in 64 would not agree where it is."""
    body = make.program("riscv", 50, -1)[32:]
    near, far = ([(0, len(body), address)] for address in (0x10000000, 0x90000001))
    for told in ((near, far), (far, near)):
        patch = native.make(body, body, "mcu-16k", arch="riscv", segments=told).patch
        was, became = Script(mixing.Decoder(patch, skd2.HEADER.size), skd2.read_header(patch)).segments(body)
        assert (was, became) == (told[0], told[0])
        assert _by_core(body, patch) == body


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("arch", ["thumb", "arm", "aarch64", "x86-64", "xtensa", "riscv"])
def test_the_machine_is_told_from_the_image(arch: str, make: Any) -> None:
    assert native.detect(make.program(arch, 60, -1)) == arch


@pytest.mark.usefixtures("core")
def test_nothing_is_read_into_what_is_no_program() -> None:
    assert native.detect(b"") == "plain"
    assert native.detect(Random(1).randbytes(50_000)) == "plain"
    assert native.detect(bytes(50_000)) == "plain"


# --- odd images ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("core")
@pytest.mark.parametrize("profile", ["mcu-16k", "mcu-64k", "linux-16m"])
def test_odd_images_go_there_and_back(profile: str, make: Any) -> None:
    noise = Random(2).randbytes(3000)
    thumb, riscv = make.program("thumb", 40, -1), make.program("riscv", 40, -1)
    for old, new in (
        (b"", b""),
        (b"", b"x"),
        (b"x", b""),
        (b"a", b"b"),
        (noise, noise),
        (noise, Random(3).randbytes(3000)),  # nothing in common
        (thumb, riscv),  # two machines
        (thumb + riscv, make.program("thumb", 40, 9) + make.program("riscv", 40, 9)),  # one behind the other
        (bytes(9000), bytes(9001)),
    ):
        made = native.make(old, new, profile)
        assert _by_core(old, made.patch) == new
        assert len(made.patch) < len(new) * 1.02 + 120, (
            "what has nothing in common costs hardly more than itself"
        )


@pytest.mark.usefixtures("core")
@settings(max_examples=80, deadline=None)
@given(
    old=st.binary(max_size=3000),
    edits=st.lists(st.tuples(st.integers(0, 2999), st.integers(0, 60), st.binary(max_size=60)), max_size=8),
    arch=st.sampled_from(native.ARCHES),
    profile=st.sampled_from(["mcu-16k", "mcu-64k"]),
)
def test_both_decoders_make_what_was_given(
    old: bytes, edits: list[tuple[int, int, bytes]], arch: str, profile: str
) -> None:
    new = old
    for at, gone, words in edits:
        at %= len(new) + 1
        new = new[:at] + words + new[at + gone :]
    patch = native.make(old, new, profile, arch=arch).patch
    assert _by_core(old, patch) == new
    assert _by_python(old, patch) == new


@pytest.mark.usefixtures("core")
@settings(max_examples=120, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    reseal=st.booleans(),
)
def test_a_mutated_patch_is_refused_alike_by_both(changes: list[tuple[int, int]], reseal: bool) -> None:
    case = GOOD[0]
    base, target, patch = (unpacked(case, name) for name in ("base", "target", "patch"))
    body = bytearray(patch)
    for at, value in changes:
        body[at % len(body)] = value
    if reseal:
        head = skd2.HEADER.size
        body[10:14] = patch[10:14]  # the base's size
        body[14:18] = struct.pack("<I", min(struct.unpack_from("<I", body, 14)[0], 3000))
        body[head - 4 : head] = struct.pack("<I", zlib.crc32(body[: head - 4]))
    outcomes: list[object] = []
    for decoder in (_by_core, _by_python):
        try:
            outcomes.append(decoder(base, bytes(body)))
        except DeltaError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]
    if body[:4] == b"SKD2" and outcomes[0] != "refused":
        assert outcomes[0] == target or reseal


def test_no_memory_is_asked_for_but_what_the_profile_has() -> None:
    """The patch that wants 4 GB: no field of the header can say so."""
    for number, (name, most) in enumerate(delta.MEMORY.items(), 1):
        size = skd2.SIZES[number - 1]
        assert size.memory == most, name
        for width in (3, 4):
            assert 0 < skd2.most_matches(size, width) <= 65535


# --- large, stopped, cut ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("core")
def test_making_tells_progress_and_can_be_stopped() -> None:
    old = Random(4).randbytes(300_000)
    said: list[int] = []
    native.make(old, old[1000:], "mcu-16k", progress=lambda done, everything: bool(said.append(done)))
    assert said
    with pytest.raises(DeltaError, match="stopped"):
        native.make(old, old[1000:], "mcu-16k", progress=lambda done, everything: True)


@pytest.mark.usefixtures("core")
def test_files_are_mapped_and_the_image_comes_in_pieces(tmp_path: Path) -> None:
    old = Random(5).randbytes(5 << 20)
    new = old[:700_000] + b"put in" + old[700_000:]
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    assert delta.create_delta(tmp_path / "old", tmp_path / "new", tmp_path / "patch", profile="linux-16m")
    pieces: list[bytes] = []
    delta.rebuild(tmp_path / "old", (tmp_path / "patch").read_bytes(), pieces.append)
    assert b"".join(pieces) == new
    assert max(map(len, pieces)) <= 1 << 20


@pytest.mark.usefixtures("core")
def test_a_cut_at_any_byte_of_the_output_costs_only_doing_it_again() -> None:
    """The decoder has no state to save: what was written is made again, and the rest follows."""
    case = GOOD[0]
    base, patch, target = (unpacked(case, name) for name in ("base", "patch", "target"))

    class PowerCut(Exception):
        pass

    for cut in range(0, len(target), 97):
        written = bytearray()

        def until(piece: bytes, written: bytearray = written, cut: int = cut) -> None:
            written += piece[: cut - len(written)]
            raise PowerCut

        with pytest.raises(PowerCut):
            native.apply(base, patch, until, len(target), 1 << 24)
        again = _by_core(base, patch)
        assert again[: len(written)] == written
        assert bytes(written) + again[len(written) :] == target


@pytest.mark.usefixtures("core")
def test_images_beyond_the_format_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 GiB and more: the core refuses, and the full image is sent."""

    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 31

    monkeypatch.setattr(native, "digest", lambda image: hashlib.sha256(b"").digest())
    with pytest.raises(DeltaError, match="2 GiB"):
        native.make(Huge(b"x"), b"y", "linux-16m", arch="plain")


@pytest.mark.usefixtures("core")
def test_tables_of_pointers_match_entry_by_entry() -> None:
    """Thirty functions put in among six hundred, and their entries in a table, in another order than they
    stand: every entry moves, and hardly any costs anything."""
    random = Random(6)
    functions = {k: b"\xfd\x7b\xbf\xa9" + random.randbytes(60) for k in range(630)}
    order = random.sample(range(630), 630)

    def image(known: set[int]) -> bytes:
        code = b"".join(functions[k] for k in range(630) if k in known)
        places = {k: 64 * at for at, k in enumerate(k for k in range(630) if k in known)}
        entries = [k for k in order if k in known]
        return code + b"".join(
            struct.pack("<i", places[k] - len(code) - 4 * at) for at, k in enumerate(entries)
        )

    fresh = set(random.sample(range(630), 30))
    old, new = image(set(range(630)) - fresh), image(set(range(630)))
    made = native.make(old, new, "mcu-64k", arch="aarch64")
    assert _by_core(old, made.patch) == new
    assert len(made.patch) - 30 * 60 < 900, (
        "thirty entries and thirty places; six hundred entries are 2400 bytes"
    )
