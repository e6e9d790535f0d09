"""`bench trust --conformance PATH`: what it makes of a checkout. The checkout here is a stand-in of the
suite's shape, with a case of every outcome."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "trust.py"

CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--entrypoint", required=True)
"""
CASES = """
import subprocess
import pytest

def test_init(pytestconfig, tmp_path):
    (tmp_path / "root.json").write_text('{"signatures": [], "signed": {}}')
    entry = pytestconfig.getoption("--entrypoint")
    words = [*entry.split(" "), "--metadata-dir", str(tmp_path / "kept"), "init", str(tmp_path / "root.json")]
    assert subprocess.run(words).returncode == 0
    assert (tmp_path / "kept" / "root.json").exists()

@pytest.mark.parametrize("number", [1, 2])
def test_fails(number):
    assert number == 0

def test_does_not_apply():
    pytest.skip("not here")

@pytest.mark.xfail
def test_is_expected_to_fail():
    assert False

@pytest.fixture
def broken():
    raise OSError("no server")

def test_cannot_begin(broken):
    pass

@pytest.fixture
def breaks_after():
    yield
    raise OSError("not cleaned up")

def test_passes_and_breaks(breaks_after):
    pass
"""


@pytest.fixture
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_trust", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_case_of_a_checkout_is_counted_once(bench: ModuleType, tmp_path: Path) -> None:
    suite = tmp_path / "tuf_conformance"
    suite.mkdir()
    (suite / "__init__.py").touch()
    (suite / "conftest.py").write_text(CONFTEST)
    (suite / "test_cases.py").write_text(CASES)
    found = bench.conformance(tmp_path)
    assert found == {
        "conformance_passed": 1,
        "conformance_failed": 4,
        "conformance_not_applicable": 2,
    }


def test_no_checkout_is_no_figure(bench: ModuleType, tmp_path: Path) -> None:
    assert bench.conformance(tmp_path) == {}


def test_a_checkouts_own_environment_is_used(bench: ModuleType, tmp_path: Path) -> None:
    assert bench._suites_python(tmp_path) == sys.executable
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").touch()
    assert bench._suites_python(tmp_path) == str(tmp_path / "env" / "bin" / "python")
