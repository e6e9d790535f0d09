"""The pages of the chips' clients as a newcomer follows them: their commands are typed, and a chip on this
desk with the claim token that they print takes the release that they make."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import missing
from skylift.testkit import esp32, micropython
from skylift.testkit.stage import PRODUCT, Stage, wait

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
# What each page's reader has built, and calls by this name.
BUILT = {"esp32": "Minimal.ino.bin", "micropython": "micropython.bin"}


def commands(page: str) -> list[str]:
    """What is to be typed into a shell of this machine; `mpremote` wants a board."""
    text = (ROOT / "docs" / "clients" / f"{page}.md").read_text()
    lines = "\n".join(re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()
    return [line for line in lines if not line.startswith("mpremote ")]


@pytest.fixture(params=sorted(BUILT))
def page(request: pytest.FixtureRequest) -> str:
    if request.param == "esp32" and esp32.compiler() is None:
        missing("a C++ compiler (g++)")
    if request.param == "micropython" and micropython.interpreter() is None:
        missing("micropython")
    return str(request.param)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A server, and keys: the quickstart up to its second step."""
    made = Stage(tmp_path / "reader")
    try:
        made.home.mkdir()
        made.serve()
        made.ceremony()
        yield made
    finally:
        made.close()


def typed(stage: Stage, line: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**stage.environment, "SKYLIFT": str(ROOT), "PATH": path}
    done = subprocess.run(
        ["bash", "-c", line], cwd=stage.home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def device(page: str, stage: Stage, claim: str) -> esp32.VirtualEsp32:
    """A board with the factory's image and what the page packed."""
    factory = stage.home / "factory.bin"
    factory.write_bytes(esp32.image("1.0.0"))
    settings = {
        "server": stage.facts["url"],
        "device_id": "first",
        "device_type": "sensor-v2",
        "product": PRODUCT,
        "claim": claim,
        "roots": str(stage.home / "roots"),
        "factory": str(factory),
        "poll": "1",
    }
    if page == "esp32":
        return esp32.VirtualEsp32(stage.home / "board", settings)
    library = stage.home / "Skylift"
    return micropython.VirtualMicropython(stage.home / "board", settings, library=library)


def test_a_newcomer_gets_from_an_empty_folder_to_an_updated_chip(page: str, stage: Stage) -> None:
    lines = commands(page)
    (stage.home / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    (stage.home / BUILT[page]).write_bytes(esp32.image("1.1.0"))
    at = next(number for number, line in enumerate(lines) if line.startswith("skylift release create"))
    said = "".join(typed(stage, line) for line in lines[:at])
    claim = re.search(r"^claim +(\S+)$", said, re.MULTILINE)
    assert claim, said
    packed = stage.home / "Skylift"
    if page == "esp32":
        assert "BEGIN CERTIFICATE" in (packed / "examples/Arduino/Minimal/roots.h").read_text()
        for_idf = "skylift trust export --esp-idf main --keys desk"
        assert f"`{for_idf}`" in (ROOT / "docs/clients/esp32.md").read_text()
        typed(stage, for_idf)
        assert "SKYLIFT" in (stage.home / "main" / "skylift_roots.h").read_text().upper()
    else:
        assert "IMAGE_ROOT" in (packed / "skylift_roots.py").read_text()
    one = device(page, stage, claim[1])
    one.start()
    try:
        wait(lambda: stage.client.get("/api/devices", current_version="1.0.0")["items"], "it enrolls")
        for line in lines[at:]:
            asks = line.startswith("skylift release sign ")  # and its reader says yes
            typed(stage, f"{line} --yes" if asks else line)
        wait(lambda: one.version() == "1.1.0", "it runs what was released")
    finally:
        one.kill()
        print(one.log[-3000:])
        shutil.rmtree(packed)


def test_the_pages_name_what_there_is() -> None:
    """The examples' own settings are those that the pages ask the reader to set."""
    sketch = (ROOT / "clients/esp32/examples/Arduino/Minimal/Minimal.ino").read_text()
    text = (ROOT / "docs/clients/esp32.md").read_text()
    for name in ("UPDATE_SERVER", "FIRMWARE_VERSION", "device_type", "product"):
        assert name in sketch
        assert name in text
    for name in ("UPDATE_SERVER", "FIRMWARE_VERSION"):
        assert name in (ROOT / "clients/micropython/examples/main.py").read_text()
    kconfig = (ROOT / "clients/esp32/Kconfig").read_text()
    assert 'menu "Skylift' in kconfig
    assert "SKYLIFT_CRYPTO_PSA" in kconfig
    for path in ("partitions.csv", "sdkconfig.defaults", "main/CMakeLists.txt"):
        assert (ROOT / "clients/esp32/examples/esp-idf" / path).exists()
    assert (
        "CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE=y"
        in (ROOT / "clients/esp32/examples/esp-idf/sdkconfig.defaults").read_text()
    )
