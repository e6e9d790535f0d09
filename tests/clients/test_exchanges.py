"""The vectors of conformance/http and conformance/lifecycle, passed by everybody: the C++ client, the one in
MicroPython, and the Python agent. Made by the Python code, checked in, versioned."""

import base64
import importlib.util
import json
import socket
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from conftest import missing
from skylift.agent.config import Config
from skylift.agent.transport import Refused, Transport
from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.testkit import esp32, esp32scene, micropython
from skylift.trust.roles import IMAGE

pytestmark = pytest.mark.slow
CONFORMANCE = Path(__file__).resolve().parents[2] / "conformance"
PIECES = (1, 7, 4096)


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONFORMANCE / name / "vectors.json").read_text())
    return found


HTTP, LIFECYCLE = read("http"), read("lifecycle")
WORDS = [*LIFECYCLE["states"], "something new"]


def raw(case: dict[str, Any]) -> bytes:
    return zlib.decompress(base64.b64decode(case["answer"]))


def maker(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"make_{name}", CONFORMANCE / name / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["http", "lifecycle"])
def test_the_file_is_what_its_maker_writes(name: str) -> None:
    """Another outcome is another version: clients out there pass the one they were built with."""
    assert maker(name).written() == read(name)


# --- what judges -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return esp32scene.scene(size=24 << 10).write(tmp_path_factory.mktemp("scene"))


def lines_of(words: list[object], lines: list[str]) -> list[str]:
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(list(map(str, words)), input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout.splitlines()


class Judges:
    """A client's verdicts, by kind of vector."""

    def __init__(self, kind: str, scene: Path, library: Path | None) -> None:
        self._cpp = kind == "c++"
        self._scene, self._library = scene, library
        self._program = esp32.harness("exchanges") if self._cpp else micropython.HOME / "host" / "judge.py"

    def _run(self, lines: list[str], what: str, *numbers: int) -> list[str]:
        if self._cpp:
            places = [] if what == "answers" else [self._scene]
            return lines_of([self._program, what, *places, *numbers], lines)
        heap = ["-X", f"heapsize={micropython.HEAP}"]
        begin = [micropython.interpreter(), *heap, self._program, self._library]
        return lines_of([*begin, what, self._scene, *numbers], lines)

    def answers(self, piece: int) -> list[str]:
        lines = [raw(case).hex() for case in HTTP["answers"]]
        return self._run(lines, "answers", HTTP["most"], piece)

    def checks(self, piece: int) -> list[str]:
        return self._run([raw(case).hex() for case in HTTP["checks"]], "checks", piece)

    def words(self) -> list[str]:
        return self._run(WORDS, "words")


@pytest.fixture(scope="module", params=["c++", "micropython"])
def judges(request: pytest.FixtureRequest, scene: Path) -> Judges:
    if request.param == "c++" and esp32.compiler() is None:
        missing("a C++ compiler (g++)")
    library = request.getfixturevalue("library") if request.param == "micropython" else None
    return Judges(request.param, scene, library)


def written(outcome: dict[str, Any]) -> str:
    """An outcome as the judges write it."""
    if "body" in outcome:
        return f"200 {outcome['body'].encode().hex()}".strip()
    return next(iter(outcome)) if "status" not in outcome else f"{outcome['status']} {outcome['retry_after']}"


@pytest.mark.parametrize("piece", PIECES)
def test_answers_come_to_what_they_must(judges: Judges, piece: int) -> None:
    for case, found in zip(HTTP["answers"], judges.answers(piece), strict=True):
        may = [written(case["comes_to"]), *([written(case["or"])] if "or" in case else [])]
        assert found.strip() in may, case["name"]


@pytest.mark.parametrize("piece", PIECES)
def test_checks_lead_where_they_must(judges: Judges, piece: int) -> None:
    found = judges.checks(piece)
    assert dict(zip([case["name"] for case in HTTP["checks"]], found, strict=True)) == {
        case["name"]: case["next"] for case in HTTP["checks"]
    }


def test_an_update_goes_on_while_its_state_is_open(judges: Judges) -> None:
    """A state that is not known is none of the open ones."""
    expected = {word: "goes on" if word in LIFECYCLE["open"] else "ends" for word in WORDS}
    assert dict(zip(WORDS, judges.words(), strict=True)) == expected


def test_the_reasons_are_the_closed_list(scene: Path) -> None:
    if esp32.compiler() is None:
        missing("a C++ compiler (g++)")
    assert lines_of([esp32.harness("exchanges"), "reasons"], []) == LIFECYCLE["reasons"]
    assert [reason.value for reason in Reason] == LIFECYCLE["reasons"]


def test_micropython_gives_no_reason_that_is_not_on_the_list() -> None:
    import re

    said: set[str] = set()
    for path in (micropython.HOME / "skylift").glob("*.py"):
        said |= set(re.findall(r'Bad\(\s*"([a-z_]+)"', path.read_text()))
    assert len(said) >= 5
    assert said <= set(LIFECYCLE["reasons"])


# --- the Python agent --------------------------------------------------------------------------------------


@contextmanager
def answering(body: bytes, piece: int) -> Iterator[str]:
    """A server that answers every connection with these bytes, in pieces, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                try:
                    line.recv(65536)
                    for at in range(0, len(body), piece):
                        line.sendall(body[at : at + piece])
                    line.shutdown(socket.SHUT_WR)
                    while line.recv(4096):
                        pass
                except OSError:
                    pass  # it has heard enough

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def transport(server: str, tmp_path: Path) -> Transport:
    about = {"device_id": "dev-1", "device_type": "t", "state_dir": tmp_path, "roots": tmp_path}
    return Transport(Config(server=server, **about), "t")  # type: ignore[arg-type] # by their names


def agents_answer(way: Transport) -> str:
    try:
        return f"200 {way.metadata(IMAGE, 'x.json', HTTP['most']).hex()}"
    except FileNotFoundError:
        return "404 30"
    except TrustError:
        return "large"
    except Refused as e:
        return f"{e.status} 30"
    except Unavailable as e:
        told = str(e).removeprefix("the server answers ")
        return f"{told} {e.retry_after:.0f}" if told.isdecimal() else "broken"


@pytest.mark.parametrize("case", HTTP["answers"], ids=lambda case: case["name"])
def test_the_agent_takes_answers_for_what_they_are(case: dict[str, Any], tmp_path: Path) -> None:
    with answering(raw(case), 4096) as server:
        found = agents_answer(transport(server, tmp_path))
    may = [written(case["comes_to"]), *([written(case["or"])] if "or" in case else [])]
    assert found.strip() in may


@pytest.mark.parametrize("case", HTTP["checks"], ids=lambda case: case["name"])
def test_the_agent_goes_where_a_check_leads(case: dict[str, Any], tmp_path: Path) -> None:
    with answering(raw(case), 64) as server:
        try:
            answer = transport(server, tmp_path).check("1.0.0", "", "")
            found = "offer" if answer["update_available"] else "nothing"
        except (Unavailable, Refused):
            found = "later"
    assert found == case["next"]
