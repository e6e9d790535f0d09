"""The factory's roots, in each form, read as a device's software reads them."""

import hashlib
import re
from pathlib import Path

import pytest

from skylift.core.errors import Rejected
from skylift.testkit.trustlab import HARDWARE, PRODUCT, Lab
from skylift.trust import compact
from skylift.trust.ceremony import Desk
from skylift.trust.pinned import export
from skylift.trust.roles import DIRECTOR, IMAGE


def roots(lab: Lab) -> dict[str, bytes]:
    return {repo: lab.desk.public(f"{repo}.root").read_bytes() for repo in (IMAGE, DIRECTOR)}


def test_a_python_module_starts_a_small_device(lab: Lab, tmp_path: Path) -> None:
    (path,) = export(lab.desk, "micropython", tmp_path)
    read: dict[str, bytes] = {}
    exec(path.read_text(), read)  # noqa: S102 - as the device imports it
    own = compact.Device("dev-1", HARDWARE, PRODUCT, read["IMAGE_ROOT"], read["DIRECTOR_ROOT"])
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


@pytest.mark.parametrize("form", ["linux", "esp-idf", "micropython"])
def test_a_desk_without_roots_exports_nothing(form: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="holds no roots yet"):
        export(Desk(tmp_path / "empty", None), form, tmp_path / "to")
    assert not (tmp_path / "to").exists()
