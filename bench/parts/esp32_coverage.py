"""What the host's tests reach of the ESP32's client."""

import base64
import hashlib
import json
import random
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from parts.shell import must, run, say
from skylift.testkit import esp32, esp32scene


def coverage(folder: Path) -> dict[str, Any]:
    """Lines and branches of the core that the host's tests reach."""
    if shutil.which("gcovr") is None:
        say("coverage: no gcovr here")
        return {}
    where = folder / "coverage"
    where.mkdir()
    include = ["-I", str(esp32.DECODER), "-I", str(esp32.CORE.parent)]
    flags = ["-O0", "-g", "--coverage", "-fno-exceptions", "-fno-rtti", "-std=c++17", *include]
    shared = []
    for source in esp32.core_sources():
        out = where / f"{source.stem}.o"
        must(["g++", *flags, "-c", str(source), "-o", str(out)], cwd=where)
        shared.append(str(out))
    for each in esp32.DECODER.glob("*.c"):
        out = where / f"{each.name}.o"
        small = ["-std=c11", "-O1", *esp32.SMALL, esp32.ARCHES, *include]
        must(["gcc", *small, "-c", str(each), "-o", str(out)])
        shared.append(str(out))
    scene = str(esp32scene.scene(size=24 << 10).write(folder / "covered"))
    plain = [flag for flag in flags if flag not in ("--coverage", "-fno-exceptions")]
    for name, words, lines in (
        ("units", [scene], ""),
        ("powercut", [scene, "2", "9"], ""),
        ("vectors", ["p256"], _p256_lines()),
        ("vectors", ["json"], "".join(f"{text.hex()}\n" for text in _texts())),
        *_trust_lines(folder),
    ):
        program = where / name
        if not program.exists():
            sources = map(str, esp32.harness_sources(name))
            must(["g++", *plain, *sources, *shared, "--coverage", "-o", str(program)], cwd=where)
        done = run([str(program), *words], cwd=where, input=lines)
        if done.returncode:
            say(f"coverage: {name} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    out = where / "summary.json"
    must(
        [
            "gcovr",
            "-r",
            str(esp32.CORE),
            "--object-directory",
            str(where),
            str(where),
            "--exclude-throw-branches",
            "--exclude-unreachable-branches",
            "--json-summary",
            str(out),
        ],
        cwd=where,
    )
    found = json.loads(out.read_text())
    for file in found["files"]:
        say(
            f"  {file['filename']:16} lines {file['line_percent']:5.1f} %,"
            f" branches {file['branch_percent'] or 100:5.1f} %"
        )
    say(f"coverage: lines {found['line_percent']} %, branches {found['branch_percent']} %")
    return {"line_coverage": found["line_percent"], "branch_coverage": found["branch_percent"]}


def _p256_lines() -> str:
    lines: list[str] = []
    n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for number in (1, 2, 7, n - 1):
        private = ec.derive_private_key(number, ec.SECP256R1())
        at = private.public_key().public_numbers()
        body = bytes([number & 255])
        good = private.sign(body, ec.ECDSA(SHA256()))
        digest = hashlib.sha256(body).hexdigest()
        point = f"{at.x:064x}{at.y:064x}"
        lines += [
            f"{point} {digest} {good.hex()}",
            f"{point} {'11' * 32} {good.hex()}",
            f"{'ff' * 64} {digest} {good.hex()}",
            f"{'01' * 64} {digest} {good.hex()}",
            f"{point} {digest} 3006020101020101",
            f"{point} {digest} 3006020100020101",
            f"{point} {digest} 300702020001020101",
            f"{point} {digest} 3006020181020101",
            f"{point} {digest} {good.hex()}00",
            f"{point} {digest} 3006020101020100",
            f"{point} {digest} 3106020101020101",
            f"{point} {digest} 3006020002020101",
            f"{point} {digest} 3006020901020101",
            f"{point} {digest} 3006030101020101",
            f"{point} {digest} 3007020101020101",
            f"{point} {digest} 30{'00' * 80}",
            f"{point} {digest} ",
            f"{point} {digest} {'30'}{'26'}{'0221' + '01' * 33}{'020101'}",
        ]
    return "".join(f"{line}\n" for line in lines)


def _texts() -> list[bytes]:
    chance = random.Random(7)
    rights = [b'{"a":1,"b":[true,false,null,{"c":"x\\n\\u00e9"}]}', b"[]", b"{}", b'{"b":-1.5e+3,"a":2}']
    made = list(rights)
    for text in rights:
        for _ in range(200):
            broken = bytearray(text)
            broken[chance.randrange(len(broken))] = chance.choice(b'{}[]",:\\1a \x80u')
            made.append(bytes(broken))
    return [*made, b"[" * 20]


def _trust_lines(folder: Path) -> list[tuple[str, list[str], str]]:
    """The vectors of conformance/trust as `vectors` reads them: by the test's own writing."""
    path = esp32.ROOT / "conformance" / "trust" / "vectors.json"
    every = json.loads(path.read_text())
    where = folder / "vectors"
    where.mkdir()
    for name, body in every["files"].items():
        (where / name).write_bytes(zlib.decompress(base64.b64decode(body)))
    sys.path[:0] = [str(esp32.ROOT / "tests"), str(esp32.ROOT / "tests" / "clients")]
    from test_esp32_core import _line  # type: ignore[import-not-found]  # tests are not a package

    lines = "".join(f"{_line(case)}\n" for case in every["cases"])
    who = [every["device_id"], every["hardware"], every["product"]]
    return [("vectors", ["trust", str(where), *who], lines)]
