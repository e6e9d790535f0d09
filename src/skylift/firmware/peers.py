"""Other tools' patch formats, by the tools themselves: bsdiff, detools, HDiffPatch, zstd, VCDIFF.

For comparing, and for clients that speak only those. Each needs its own library or program, found when it is
asked for. None of them says which image it was made from: who applies one checks the digest of what came out.
"""

import importlib
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skylift.core.errors import invalid
from skylift.firmware import hdiff
from skylift.firmware.native import DeltaError


@dataclass(frozen=True, slots=True)
class Format:
    """How patches of a format are made and applied; `magic` is empty where they begin with nothing fixed."""

    magic: bytes
    needs: str
    make: Callable[[bytes, bytes], bytes]
    apply: Callable[[bytes, bytes], bytes]


def _bsdiff_make(old: bytes, new: bytes) -> bytes:
    return bytes(_installed("bsdiff4").diff(old, new))


def _bsdiff_apply(old: bytes, patch: bytes) -> bytes:
    return bytes(_installed("bsdiff4").patch(old, patch))


def _installed(name: str) -> Any:
    """A library that is no dependency of ours: there when the operator installed it."""
    return importlib.import_module(name)


def _detools_make(old: bytes, new: bytes) -> bytes:
    detools, out = _installed("detools"), io.BytesIO()
    detools.create_patch(io.BytesIO(old), io.BytesIO(new), out, compression="lzma", use_mmap=False)
    return out.getvalue()


def _detools_apply(old: bytes, patch: bytes) -> bytes:
    detools, out = _installed("detools"), io.BytesIO()
    detools.apply_patch(io.BytesIO(old), io.BytesIO(patch), out)
    return out.getvalue()


def _run(program: str, words: Callable[[Path, Path, Path], list[str]]) -> Callable[[bytes, bytes], bytes]:
    """A program over three files: the old image, what is given, and what comes out."""

    def act(old: bytes, given: bytes) -> bytes:
        if shutil.which(program) is None:
            raise ModuleNotFoundError(program)
        with tempfile.TemporaryDirectory() as folder:
            base, input_, output = (Path(folder) / name for name in ("old", "in", "out"))
            base.write_bytes(old)
            input_.write_bytes(given)
            done = subprocess.run(
                [program, *words(base, input_, output)], check=False, capture_output=True, text=True
            )
            if done.returncode:
                raise ValueError(done.stderr.strip() or f"exit code {done.returncode}")
            return output.read_bytes()

    return act


_ZSTD = ["-q", "-f", "--long=31"]
FORMATS: dict[str, Format] = {
    "bsdiff": Format(b"BSDIFF40", "the Python package bsdiff4", _bsdiff_make, _bsdiff_apply),
    "detools": Format(b"", "the Python package detools", _detools_make, _detools_apply),
    "hdiffpatch": Format(b"HDIFF", "the Python package hdiffpatch", hdiff.plain_make, hdiff.plain_apply),
    "zstd": Format(
        b"\x28\xb5\x2f\xfd",
        "the program zstd",
        _run("zstd", lambda old, a, b: [*_ZSTD, "-19", f"--patch-from={old}", str(a), "-o", str(b)]),
        _run("zstd", lambda old, a, b: [*_ZSTD, "-d", f"--patch-from={old}", str(a), "-o", str(b)]),
    ),
    "vcdiff": Format(
        b"\xd6\xc3\xc4",
        "the program xdelta3",
        _run("xdelta3", lambda old, a, b: ["-q", "-f", "-9", "-e", "-s", str(old), str(a), str(b)]),
        _run("xdelta3", lambda old, a, b: ["-q", "-f", "-d", "-s", str(old), str(a), str(b)]),
    ),
}


def format_of(patch: bytes) -> str | None:
    """Which of these formats a patch is in, by how it begins."""
    return next((name for name, form in FORMATS.items() if form.magic and patch.startswith(form.magic)), None)


def make(name: str, old: bytes, new: bytes) -> bytes:
    """A patch of a peer's format. Raises `Rejected` where its library or program is missing."""
    return _by(name, "make", old, new)


def apply(name: str, old: bytes, patch: bytes) -> bytes:
    """What a peer's patch makes of the old image. Raises `DeltaError` when it does not apply."""
    return _by(name, "apply", old, patch)


def _by(name: str, deed: str, old: bytes, given: bytes) -> bytes:
    form = FORMATS[name]
    try:
        return form.make(old, given) if deed == "make" else form.apply(old, given)
    except ModuleNotFoundError as e:
        raise invalid("format", name, f"needs {form.needs}, which is not installed here") from e
    except Exception as e:  # each library has its own errors
        raise DeltaError(f"{name}: {e}") from e
