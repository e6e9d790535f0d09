"""The compact verifier on MicroPython's own interpreter: every vector, and a factory's exported files."""

import base64
import json
import shutil
import subprocess
import sys
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from skylift.engine import director
from skylift.testkit.trustlab import HARDWARE, PRODUCT, Lab
from skylift.trust.pinned import export
from skylift.trust.roles import DIRECTOR

ROOT = Path(__file__).resolve().parents[2]
VECTORS: dict[str, Any] = json.loads((ROOT / "conformance" / "trust" / "vectors.json").read_text())
HEAP = "384k"  # with objects twice as large as on a 32-bit chip, and with compiling what a chip has frozen


@pytest.fixture(scope="module")
def micropython() -> str:
    """The interpreter: of the system, or where dev.py unpacked it."""
    found = shutil.which("micropython") or shutil.which("micropython", path=str(Path(sys.executable).parent))
    if found is None:
        missing("micropython")
    return str(found)


def run(micropython: str, *words: object) -> str:
    asked = [micropython, "-X", f"heapsize={HEAP}", *map(str, words)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_vector_is_judged_alike_on_micropython(micropython: str, tmp_path: Path) -> None:
    for name, body in VECTORS["files"].items():
        (tmp_path / name).write_bytes(zlib.decompress(base64.b64decode(body)))
    common = {name: VECTORS[name] for name in ("device_id", "hardware", "product")}
    lines = [common, *VECTORS["cases"]]
    (tmp_path / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = run(micropython, ROOT / "conformance" / "trust" / "judge.py", ROOT / "src", tmp_path)
    assert told == f"{len(VECTORS['cases'])} judged on micropython\n"


FIRST = """
import sys
sys.path[:0] = sys.argv[1:3]
from skylift.trust import compact
import skylift_roots as factory
own = compact.Device("dev-1", sys.argv[3], sys.argv[4], factory.IMAGE_ROOT, factory.DIRECTOR_ROOT)
def file(name):
    with open(sys.argv[2] + "/" + name, "rb") as opened:
        return opened.read()
own.take_delegations(file("targets"), None)
found = own.decide(file("order"), file("role"), "00ff", None)
print(found.version, found.sha256, own.order_version, own.role_version)
"""


def test_a_micropython_device_begins_with_what_the_desk_exports(
    micropython: str, lab: Lab, tmp_path: Path
) -> None:
    """The factory's module as it is written, the files as a server serves them, no clock."""
    line = lab.enroll()
    line.order(lab.released("1.2.0", b"the bytes"))
    factory = tmp_path / "factory"
    export(lab.desk, "micropython", factory)
    served = {
        "targets": lab.published()["image", "1.targets.json"],
        "role": lab.published()["image", f"1.{PRODUCT}.json"],
        "order": line.honest(DIRECTOR, director.FRESH, "00ff"),
    }
    for name, body in served.items():
        (factory / name).write_bytes(body)
    (tmp_path / "first.py").write_text(FIRST)
    told = run(micropython, tmp_path / "first.py", ROOT / "src", factory, HARDWARE, PRODUCT)
    assert told.split() == ["1.2.0", sha256(b"the bytes").hexdigest(), "1", "1"]
