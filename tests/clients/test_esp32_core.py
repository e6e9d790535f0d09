"""The C++ core of the ESP32's client by itself: its parts, the vectors everybody passes, power cuts, its
ports.

Compiled with warnings as errors and sanitizers; one build serves all of it.
"""

import base64
import hashlib
import json
import random
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from conftest import missing
from skylift.testkit import esp32, esp32scene, forge
from skylift.trust import pinned

pytestmark = pytest.mark.slow
VECTORS = Path(__file__).resolve().parents[2] / "conformance" / "trust" / "vectors.json"
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if esp32.compiler() is None:
        missing("a C++ compiler (g++)")
    return esp32scene.scene(size=24 << 10).write(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def vectors(scene: Path) -> Path:
    return esp32.harness("vectors")


def told(program: Path, *words: str, lines: list[str] | None = None) -> list[str]:
    done = subprocess.run(
        [str(program), *words],
        input="".join(f"{line}\n" for line in lines or []),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.splitlines()


def test_every_part_does_as_it_says(scene: Path) -> None:
    """HTTP in every piece, MQTT, records, and the client against a server in memory that lies in each way."""
    said = told(esp32.harness("units"), str(scene))
    checks, _, failures = said[-1].partition(" checks, ")
    assert (int(checks) > 300, failures) == (True, "0 failures"), said


def _line(case: dict[str, Any]) -> str:
    device, none = case["device"], "-"
    roots = ",".join(f"{root['repository']}={root['file']}" for root in case["roots"]) or none
    words = [
        *(case["name"].replace("\t", " "), device["image_root"], device["director_root"]),
        *(
            device["delegations"] or none,
            device.get("delegation_version", 0),
        ),
        *(device["order_version"], device["role_version"], device["floor"]),
        *(device.get("log_size", 0), device.get("log_root") or none),
        *(case["nonce"] or none, none if case["now"] is None else case["now"], roots),
        *(case["delegations"] or none, case["order"], case["role"] or none, case.get("proofs") or none),
    ]
    return "\t".join(map(str, words))


def test_the_verifier_passes_every_vector_of_trust(vectors: Path, tmp_path: Path) -> None:
    all_ = json.loads(VECTORS.read_text())
    for name, body in all_["files"].items():
        (tmp_path / name).write_bytes(zlib.decompress(base64.b64decode(body)))
    who = (all_["device_id"], all_["hardware"], all_["product"])
    cases = all_["cases"]
    found = [
        line.split("\t")
        for line in told(vectors, "trust", str(tmp_path), *who, lines=[_line(case) for case in cases])
    ]
    assert len(found) == len(cases) > 100
    for case, words in zip(cases, found, strict=True):
        if "refuse" in case:
            assert words[:2] == ["refuse", case["refuse"]["reason"]], case["name"]
        elif case.get("nothing"):
            assert words[0] == "nothing", case["name"]
        else:
            image = case["install"]
            about = [image[key] for key in ("path", "length", "sha256", "version", "security_version")]
            assert words[0] == "install", (case["name"], words)
            assert words[1:6] == list(map(str, about)), case["name"]
            assert words[7:9] == [image["deployment"], str(image["attempt"])], case["name"]
            stored = case["after"]
            kept = [stored.get(key) for key in ("order_version", "role_version", "log_size", "log_root")]
            assert words[9:] == [str(each or "0") for each in kept[:3]] + [kept[3] or ""], case["name"]


def test_sha256_is_sha256(vectors: Path) -> None:
    some = [random.Random(n).randbytes(n) for n in (*range(140), 1000, 70000)]
    assert told(vectors, "sha256", lines=[body.hex() for body in some]) == [
        hashlib.sha256(body).hexdigest() for body in some
    ]


def _point(key: ec.EllipticCurvePrivateKey) -> str:
    at = key.public_key().public_numbers()
    return f"{at.x:064x}{at.y:064x}"


def test_p256_takes_good_signatures_and_no_others(vectors: Path) -> None:
    """Keys 1, 2 and n - 1 too: their points meet the generator inside the computation."""
    chance = random.Random(5)
    lines, expected = [], []
    for number in (1, 2, N - 1, *(chance.randrange(3, N) for _ in range(12))):
        key = ec.derive_private_key(number, ec.SECP256R1())
        body = chance.randbytes(30)
        digest = hashlib.sha256(body).hexdigest()
        good = key.sign(body, ec.ECDSA(SHA256()))
        r, s = decode_dss_signature(good)
        point, other = _point(key), hashlib.sha256(b"other").hexdigest()
        off = point[:-2] + f"{int(point[-2:], 16) ^ 1:02x}"
        minimal = b"\x30\x06\x02\x01\x01\x02\x01\x01"
        for at, told_digest, signature, is_good in (
            (point, digest, good, True),
            (point, digest, encode_dss_signature(r, N - s), True),  # the same signature, mirrored
            (point, other, good, False),
            (off, digest, good, False),
            ("ff" * 64, digest, good, False),
            (point, digest, encode_dss_signature(r, (s + 1) % N), False),
            (point, digest, encode_dss_signature(r + N, s), False),
            (point, digest, encode_dss_signature(r, N), False),
            (point, digest, encode_dss_signature(0, s), False),
            (point, digest, encode_dss_signature(r, 0), False),
            (point, digest, good[:-1], False),
            (point, digest, good + b"\0", False),
            (point, digest, b"\x31" + good[1:], False),
            (point, digest, good[:2] + b"\x03" + good[3:], False),
            (point, digest, minimal, False),
            (point, digest, b"\x30\x07\x02\x02\x00\x01\x02\x01\x01", False),  # a zero too many
            (point, digest, b"\x30\x06\x02\x01\x81\x02\x01\x01", False),  # negative
            (point, digest, b"\x30\x26\x02\x21" + b"\x01" * 33 + b"\x02\x01\x01", False),
            (point, digest, b"\x30\x06\x02\x00\x02\x02\x01\x01", False),
            (point, digest, b"\x30\x06\x02\x09\x01\x02\x01\x01", False),
            (point, digest, b"", False),
        ):
            lines.append(f"{at} {told_digest} {signature.hex()}")
            expected.append("good" if is_good else "bad")
    assert told(vectors, "p256", lines=lines) == expected


TEXTS = [
    *(b'{"a":1}', b"[]", b"{}", b'{"a":1,"b":[true,false,{"c":"x\\n"}]}', b' {"a" : 1 } ', b'{"b":1,"a":2}'),
    *(
        b'{"a":1,"a":1}',
        b'{"a":null}',
        b'{"a":-1}',
        b'{"a":1.5}',
        b'{"a":1e5}',
        b'{"a":01}',
        b'{"a":"\\u00e9"}',
    ),
    *(
        b'{"a":"\\q"}',
        b'{"a":"\xc3\xa9"}',
        b'{"a":"\x01"}',
        b'{"a":1}x',
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a":1,}',
    ),
    *(
        b"[1,]",
        b"[,1]",
        b'["a"',
        b"1",
        b"",
        b"nul",
        b'{"a":tru}',
        b'{"ab":1,"a":2}',
        b'{"a":1,"ab":2}',
        b"{a:1}",
    ),
    *(
        b"[" * 15 + b"]" * 15,
        b"[" * 16 + b"]" * 16,
        b"[" * 17 + b"]" * 17,
        b"[" * 5000,
        b'{"a":1234567890123456}',
    ),
    *(
        b'{"a":"\\u12"}',
        b"[1 2]",
        b'{"a" 1}',
        b'["x\\',
        b"[-]",
        b"[1.]",
        b"[1e]",
        b"[1e+2]",
        b"[2E-2]",
        b'{"a":1]',
    ),
]


def test_json_is_taken_where_everybody_takes_it(vectors: Path) -> None:
    """The reader for answers agrees with Python's up to its depth; the one for signed files with
    `trust.plain`."""
    from skylift.trust import plain

    chance = random.Random(7)
    some = list(TEXTS)
    for text in TEXTS[:8]:
        for _ in range(60):
            broken = bytearray(text)
            broken[chance.randrange(len(broken))] = chance.choice(b'{}[]",:\\1a \x80')
            some.append(bytes(broken))
    for text, found in zip(some, told(vectors, "json", lines=[text.hex() for text in some]), strict=True):
        assert found == f"{_is_json(text):d}{_is_plain(plain, text):d}", text


def _is_json(text: bytes) -> bool:
    if text.count(b"[" * 17):
        return False
    try:
        found = json.loads(text.decode("latin-1"), parse_constant=lambda word: 1 / 0)
    except (ValueError, RecursionError, ZeroDivisionError):
        return False
    return isinstance(found, dict | list)


def _is_plain(plain: Any, text: bytes) -> bool:
    try:
        found, end = plain.value(text, 0, 1)
    except plain.Refused:
        return False
    return end == len(text) and isinstance(found, dict | list)


def test_the_power_may_go_at_any_operation_of_the_flash(scene: Path) -> None:
    """Every fifth operation and some pairs; all of them: `dev.py bench esp32`."""
    found = json.loads(told(esp32.harness("powercut", ("-O2", "-g")), str(scene), "4", "5")[-1])
    assert found["cuts"] > 500
    assert {found[key] for key in ("unbootable", "unverified_boots", "stuck", "neither_old_nor_new")} == {0}
    assert set(found["ends"]) == {"1.0.0", "1.1.0"}


def test_the_power_may_go_at_every_pair_of_operations(scene: Path, tmp_path: Path) -> None:
    """Of an update of one sector: every operation, in four places, and then every one of the life that
    follows, whole and by delta, good and bad; larger ones: `dev.py bench esp32 --full`."""
    small = esp32scene.scene(size=4 << 10).write(tmp_path)
    found = json.loads(told(esp32.power_cuts(), str(small), "all")[-1])
    assert found["pairs"] > 100_000
    assert found["chips"] <= found["lives"]
    assert {found[key] for key in ("unbootable", "unverified_boots", "stuck", "neither_old_nor_new")} == {0}


@pytest.mark.parametrize("file", ["src/skylift/p256.cpp", "tests/cuts.hpp", "tests/fuzz/fuzz.hpp"])
def test_what_a_source_includes_is_compiled_anew_when_it_changes(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a figure were of a client that is no more: the memory of P-256 has the core's own file within."""
    home = tmp_path / "esp32"
    shutil.copytree(esp32.HOME, home, ignore=shutil.ignore_patterns("build"))
    monkeypatch.setattr(esp32, "HOME", home)
    monkeypatch.setattr(esp32, "CORE", home / "src" / "skylift")
    monkeypatch.setattr(esp32, "BUILD", tmp_path / "build")
    monkeypatch.setattr(esp32, "_run", lambda words: Path(words[-1]).write_bytes(b""))
    before = esp32.power_cuts()
    assert esp32.power_cuts() == before
    with (home / file).open("a") as source:
        source.write("// another\n")
    assert esp32.power_cuts() != before


def test_the_proof_of_power_cuts_would_find_a_careless_client(scene: Path, tmp_path: Path) -> None:
    """One that notes a sector as written before it is, and arms without reading back: it boots what nobody
    signed."""
    careless = (esp32.CORE / "install.cpp").read_text()
    for right, wrong in (
        ("if (equal(found, journal.sha256, 32)) return Outcome::OK;", "return Outcome::OK;"),
        (
            "offset_.body.at = saved_at_ = writer_.safe();",
            "offset_.body.at = saved_at_ = writer_.safe() + SECTOR;",
        ),
    ):
        assert right in careless
        careless = careless.replace(right, wrong)
    program = _with(tmp_path, careless)
    done = subprocess.run([str(program), str(scene), "0", "3"], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["unverified_boots"] > 0


def _with(folder: Path, careless: str) -> Path:
    """`powercut` with another install.cpp."""
    path = folder / "install.cpp"
    path.write_text(careless.replace('#include "client.hpp"', '#include "skylift/client.hpp"'))
    host, tests = esp32.HOME / "host", esp32.HOME / "tests"
    sources = [tests / "powercut.cpp", tests / "p256_memo.cpp", host / "chip.cpp", host / "desk.cpp", path]
    return esp32.build("careless", sources, ("-O2", "-g"), without=("install.cpp", "p256.cpp"))


SKETCH = "examples/Arduino/Minimal/Minimal.ino"


@pytest.mark.parametrize("crypto", ["own", "psa"])
def test_the_ports_for_the_chip_are_well_formed(scene: Path, tmp_path: Path, crypto: str) -> None:
    """Against declarations of ESP-IDF's names (clients/esp32/stubs): types and spelling, nothing more. The
    library is the packed one, as the ecosystems get it."""
    cxx, cc = esp32.compiler() or ("", "")
    library = tmp_path / "Skylift"
    subprocess.run(
        ["python3", str(esp32.HOME / "pack.py"), str(library), "--roots", str(_roots(tmp_path))], check=True
    )
    settings = [
        f'-DCONFIG_SKYLIFT_{name}="x"' for name in ("SERVER", "DEVICE_ID", "DEVICE_TYPE", "PRODUCT", "CLAIM")
    ]
    include = [
        "-I",
        str(esp32.HOME / "stubs"),
        "-I",
        str(library / "src"),
        "-I",
        str(library / "src" / "delta"),
        "-I",
        str(tmp_path),
    ]
    flags = [
        "-std=c++17",
        "-fno-exceptions",
        "-fno-rtti",
        "-DESP_PLATFORM",
        "-DARDUINO=1",
        *settings,
        *include,
    ]
    flags += ["-DSKYLIFT_CRYPTO_PSA"] if crypto == "psa" else []
    every = sorted(library.glob("src/**/*.cpp")) if crypto == "psa" else sorted(library.glob("src/esp/*.cpp"))
    every += [library / SKETCH, library / "examples/esp-idf/main/main.cpp"]
    for source in every:
        words = [cxx, *flags, *esp32.WARNINGS, "-fsyntax-only", "-x", "c++", str(source)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    for source in sorted(library.glob("src/delta/*.c")):
        subprocess.run(
            [cc, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(source)], check=True
        )


def _roots(folder: Path) -> Path:
    for name in ("image", "director"):
        (folder / f"{name}.root.json").write_text('{"signatures":[],"signed":{}}')
    (folder / "log.json").write_text(json.dumps({"size": 7, "root": "ab" * 32}))
    name, made = pinned.FORMS["esp-idf"]
    (folder / name).write_text(
        made({repo: forge.root(repo) for repo in ("image", "director")}, pinned.NO_LOG)
    )
    return folder
