"""Builds the delta core into src/skylift/firmware/: `python native/build.py`. Standard library only.

Where no C compiler is, nothing is built and nothing breaks: the package then has its decoder in Python.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = ("fuzz.c", "bench_apply.c")  # of the bench
SOURCES = sorted(path for path in HERE.glob("*.c") if path.name not in PROGRAMS)
HEADERS = sorted(HERE.glob("*.h"))
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
LIBRARY = HERE.parent / "src" / "skylift" / "firmware" / f"_skydelta{SUFFIX}"
FLAGS = ["-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=default", "-fno-strict-aliasing"]


def compiler() -> str | None:
    """The C compiler: $CC, or the first of cc, gcc, clang that is there."""
    wanted = os.environ.get("CC")
    names = [wanted] if wanted else ["cc", "gcc", "clang"]
    return next((found for name in names if (found := shutil.which(name))), None)


def stale() -> bool:
    """Whether the library is missing or older than its sources."""
    if not LIBRARY.exists():
        return True
    built = LIBRARY.stat().st_mtime
    return any(source.stat().st_mtime > built for source in (*SOURCES, *HEADERS))


def build() -> Path | None:
    """The library, built if it has to be; None where there is no compiler."""
    if not stale():
        return LIBRARY
    cc = compiler()
    if cc is None:
        return None
    fresh = LIBRARY.with_name(f"{LIBRARY.name}.{os.getpid()}")
    subprocess.run([cc, *FLAGS, "-o", str(fresh), *map(str, SOURCES)], check=True)
    fresh.replace(LIBRARY)
    return LIBRARY


if __name__ == "__main__":
    built = build()
    print(f"built {built}" if built else "no C compiler here: the decoder in Python will do")
