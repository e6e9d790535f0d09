"""The factory's roots, in each form, read as a device's software reads them."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from skylift.core.errors import Rejected
from skylift.testkit.trustlab import HARDWARE, PRODUCT, Lab
from skylift.trust import compact
from skylift.trust.ceremony import Desk
from skylift.trust.log import Pin
from skylift.trust.pinned import export
from skylift.trust.roles import DIRECTOR, IMAGE


def roots(lab: Lab) -> dict[str, bytes]:
    return {repo: lab.desk.public(f"{repo}.root").read_bytes() for repo in (IMAGE, DIRECTOR)}


def test_a_python_module_starts_a_small_device(lab: Lab, tmp_path: Path) -> None:
    (path,) = export(lab.desk, "micropython", tmp_path)
    read: dict[str, Any] = {}
    exec(path.read_text(), read)  # noqa: S102 - as the device imports it
    roots_ = read["IMAGE_ROOT"], read["DIRECTOR_ROOT"]
    own = compact.Device(
        "dev-1", HARDWARE, PRODUCT, *roots_, log_size=read["LOG_SIZE"], log_root=read["LOG_ROOT"]
    )
    assert own.image.version == own.director.version == 1
    assert {IMAGE: read["IMAGE_ROOT"], DIRECTOR: read["DIRECTOR_ROOT"]} == roots(lab)


def test_a_c_header_has_every_byte_and_its_digest(lab: Lab, tmp_path: Path) -> None:
    (path,) = export(lab.desk, "esp-idf", tmp_path)
    text = path.read_text()
    assert path.name == "skylift_roots.h"
    for repo, body in roots(lab).items():
        array = re.search(rf"skylift_{repo}_root\[\] = \{{(.*?)\}};", text, re.DOTALL)
        assert array is not None
        assert bytes(int(word, 16) for word in re.findall(r"0x[0-9a-f]{2}", array[1])) == body
        assert hashlib.sha256(body).hexdigest() in text
        assert f"skylift_{repo}_root_size = sizeof skylift_{repo}_root;" in text


def test_linux_gets_the_files_themselves(lab: Lab, tmp_path: Path) -> None:
    written = export(lab.desk, "linux", tmp_path)
    assert [path.read_bytes() for path in written] == list(roots(lab).values())


def test_the_checkpoint_that_the_desk_verified_goes_along(lab: Lab, tmp_path: Path) -> None:
    root = hashlib.sha256(b"a log").hexdigest()
    lab.desk.public("log").write_text(json.dumps({"size": 41, "root": root}))
    *_, path = export(lab.desk, "linux", tmp_path)
    assert (path.name, Pin.read(path)) == ("log.json", Pin(41, root))
    read: dict[str, Any] = {}
    exec(export(lab.desk, "micropython", tmp_path)[0].read_text(), read)  # noqa: S102 - as the device imports it
    assert (read["LOG_SIZE"], read["LOG_ROOT"]) == (41, root)
    text = export(lab.desk, "esp-idf", tmp_path)[0].read_text()
    array = re.search(r"skylift_log_root\[32\] = \{(.*?)\};", text)
    assert "#define SKYLIFT_LOG_SIZE 41ULL" in text
    assert array is not None
    assert bytes(int(word, 16) for word in array[1].split(", ")).hex() == root


def test_without_one_a_device_pins_the_first_that_it_sees(lab: Lab, tmp_path: Path) -> None:
    assert len(export(lab.desk, "linux", tmp_path)) == 2
    read: dict[str, Any] = {}
    exec(export(lab.desk, "micropython", tmp_path)[0].read_text(), read)  # noqa: S102 - as the device imports it
    assert (read["LOG_SIZE"], read["LOG_ROOT"]) == (0, "")
    assert "#define SKYLIFT_LOG_SIZE 0ULL" in export(lab.desk, "esp-idf", tmp_path)[0].read_text()


def test_a_c_compiler_takes_the_header(lab: Lab, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        missing("gcc")
    export(lab.desk, "esp-idf", tmp_path)
    main = (
        "int main(void) { return SKYLIFT_LOG_SIZE != 0 || skylift_log_root[0] || !skylift_image_root_size; }"
    )
    (tmp_path / "main.c").write_text(f'#include "skylift_roots.h"\n{main}\n')
    built = ["gcc", "-std=c99", "-Werror", "-o", "main", "main.c"]
    subprocess.run(built, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 0


@pytest.mark.parametrize("form", ["linux", "esp-idf", "micropython"])
def test_a_desk_without_roots_exports_nothing(form: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="holds no roots yet"):
        export(Desk(tmp_path / "empty", None), form, tmp_path / "to")
    assert not (tmp_path / "to").exists()
