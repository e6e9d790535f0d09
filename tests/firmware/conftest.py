"""The C core, built for the tests where a compiler is (dev.py builds it too); and what several of them pack
and rebuild."""

import gzip
import hashlib
import importlib.util
from pathlib import Path
from random import Random

import pytest

from conftest import missing
from skylift.firmware import delta, native

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


@pytest.fixture
def core(built: bool) -> None:
    """For modules whose every test needs it."""
    if not built:
        missing("the C core (a C compiler)")


def rebuilt(old: bytes, patch: bytes, scratch: Path | None = None) -> bytes:
    pieces: list[bytes] = []
    delta.rebuild(old, patch, pieces.append, scratch=scratch)
    return b"".join(pieces)


def words(seed: int, size: int) -> bytes:
    """Text that packs, and says something else for every seed."""
    random = Random(seed)
    known = [hashlib.sha256(b"%d" % k).hexdigest()[: 3 + k % 9].encode() for k in range(900)]
    return b" ".join(random.choice(known) for _ in range(size // 8))[:size]


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, 9, mtime=0)
