"""The C core, built for the tests where a compiler is (dev.py builds it too)."""

import importlib.util
from pathlib import Path

import pytest

from skylift.firmware import native

_BUILD = Path(__file__).resolve().parents[2] / "native" / "build.py"


@pytest.fixture(scope="session", autouse=True)
def built() -> bool:
    """Whether the core is there; tests that need it ask for this fixture and say so when it is not."""
    spec = importlib.util.spec_from_file_location("skylift_native_build", _BUILD)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.build()
    native._library.cache_clear()
    return native.available()
