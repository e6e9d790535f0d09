"""The MicroPython client on MicroPython's own interpreter: power cuts, installation by mip, bad settings.
What it does with a server is in test_esp32, beside the C++ client."""

import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from skylift.testkit import esp32scene, forge, micropython
from skylift.testkit.stage import wait

pytestmark = pytest.mark.slow
STRIDE = 6  # `bench esp32` cuts at every operation


def run(*words: object) -> "subprocess.CompletedProcess[str]":
    asked = [str(micropython.interpreter()), *map(str, words)]
    return subprocess.run(asked, capture_output=True, text=True, check=False)


def test_the_power_may_go_at_every_operation_of_the_flash(library: Path, tmp_path: Path) -> None:
    found = micropython.cut_everywhere(tmp_path, library, esp32scene.scene(), STRIDE)
    assert found.cuts >= found.operations // STRIDE > 10
    assert (found.unbootable, found.unverified) == (0, 0)
    assert set(found.ends) <= {"1.1.0 complete", "1.0.0 rolled_back"}
    assert found.ends["1.1.0 complete"] > found.cuts // 2


def test_the_power_may_go_twice(library: Path, tmp_path: Path) -> None:
    """Once in the update, once in what it does about it; more of them: `bench esp32`."""
    found = micropython.cut_pairs(tmp_path, library, esp32scene.scene(), 4, seed=3)
    assert found.cuts > 4
    assert (found.unbootable, found.unverified) == (0, 0)
    assert set(found.ends) <= {"1.1.0 complete", "1.0.0 rolled_back"}


def test_what_a_stranger_sends_breaks_nothing(library: Path, tmp_path: Path) -> None:
    """More of it: `bench esp32`."""
    found = micropython.fuzz(tmp_path, library, esp32scene.scene(4 << 10), 1500, seed=8)
    assert not found.findings, "\n".join(found.findings[:10])
    assert found.inputs == 6 * 1500


def test_mip_installs_what_was_packed(tmp_path: Path) -> None:
    there, library = tmp_path / "there", tmp_path / "library"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(library)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        micropython.packed(library, "--url", url)
        words = f"import mip; mip.install({url + 'package.json'!r}, target={str(there)!r}, mpy=False)"
        done = run("-c", words)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.returncode == 0, done.stdout + done.stderr
    packed = sorted(path.relative_to(library) for path in library.rglob("*.py"))
    assert len(packed) > 10
    assert all((there / path).read_bytes() == (library / path).read_bytes() for path in packed)


BEGIN = """
import sys
sys.path[:0] = sys.argv[1:3]
import skylift
try:
    skylift.Client(skylift.Config({}))
except ValueError as e:
    print(e)
"""
GOOD = {
    "server": "http://h:1",
    "device_id": "d",
    "device_type": "t",
    "product": "p",
    "version": "1",
    "image_root": "r",
    "director_root": "r",
}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"server": "ftp://h"}, "config: server is 'ftp://h': must be http://HOST:PORT or https://HOST:PORT"),
        ({"server": "https://h"}, "config: ca is empty, and nobody else's word counts for a server of https"),
        ({"device_id": ""}, "config: device_id is empty"),
        ({"image_root": b""}, "config: image_root is empty"),
        ({"poll": 3}, "config: there is no setting poll"),
        ({"save_every": 5000}, "config: save_every must be a multiple of 4096"),
    ],
)
def test_a_wrong_setting_is_named(
    library: Path, tmp_path: Path, wrong: dict[str, object], words: str
) -> None:
    said = ", ".join(f"{name}={value!r}" for name, value in (GOOD | wrong).items())
    (tmp_path / "begin.py").write_text(BEGIN.format(said))
    done = run(tmp_path / "begin.py", library, micropython.HOME / "host")
    assert done.stdout.strip() == words, done.stderr


RUN = """
import sys
sys.path[:0] = sys.argv[1:4]
import esp32
esp32.flash.open(sys.argv[4], 524288)
exec(open(sys.argv[5]).read())
"""


def test_the_examples_page_is_a_whole_program(library: Path, tmp_path: Path) -> None:
    """As a board runs it, but for its own words: where the server is, and the claim."""
    asked: list[dict[str, object]] = []
    scene = esp32scene.scene()
    (tmp_path / "skylift_roots.py").write_text(
        "".join(f"{repo.upper()}_ROOT = {forge.root(repo)!r}\n" for repo in ("image", "director"))
        + 'LOG_SIZE = 0\nLOG_ROOT = ""\n'
    )
    (tmp_path / "ca.pem").write_text("")
    (tmp_path / "run.py").write_text(RUN)
    with micropython.served(scene, asked) as address:
        page = (micropython.HOME / "examples" / "main.py").read_text()
        for own, here in (("https://updates.example.com", address), ("/server_ca.pem", f"{tmp_path}/ca.pem")):
            assert own in page
            page = page.replace(own, here)
        (tmp_path / "main.py").write_text(page)
        places = (micropython.HOME / "host", library, tmp_path, tmp_path / "flash.bin", tmp_path / "main.py")
        words = [str(micropython.interpreter()), str(tmp_path / "run.py"), *map(str, places)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            wait(lambda: asked or process.poll() is not None, "it enrolls")
        finally:
            process.kill()
        said = process.communicate()[0].decode()
    assert asked, said
    assert (asked[0]["device_id"], asked[0]["claim"]) == ("esp-010203040506", "clm_...")


def test_roots_that_are_none_trust_nothing(library: Path, tmp_path: Path) -> None:
    for repo in ("image", "director"):
        (tmp_path / f"{repo}.root.json").write_bytes(forge.root("director"))  # both the director's
    scene = esp32scene.scene()
    scene.write(tmp_path)
    told = (f"roots={tmp_path}", f"factory={tmp_path / 'old.bin'}", "server=http://127.0.0.1:1")
    who = (f"device_id={forge.DEVICE}", f"device_type={forge.HARDWARE}", f"product={forge.PRODUCT}")
    settings = dict(word.split("=", 1) for word in (*told, *who))
    device = micropython.VirtualMicropython(tmp_path / "home", settings, library=library)
    device.start()
    try:
        wait(lambda: "roots are unusable: no update can be trusted" in device.log, "it says so")
    finally:
        device.kill()
