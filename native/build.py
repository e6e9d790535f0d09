"""Builds what is in C: `python native/build.py`. Standard library only.

The delta core goes into src/skylift/firmware/, the gateway's filter into src/skylift/gateway/envoy/. Where no
C compiler is, nothing is built and nothing breaks: deltas then have their decoder in Python, and the gateway
refuses files with limits by name.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "src" / "skylift"
DECODER = HERE / "decoder"  # for devices too
PROGRAMS = ("fuzz.c", "fuzz_btf.c", "bench_apply.c")  # of the bench
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
FLAGS = ["-O2", "-fPIC", "-shared", "-fvisibility=default", "-fno-strict-aliasing"]


@dataclass(frozen=True)
class Library:
    """One shared library: where its sources are, what it becomes, and which C it is written in."""

    folder: Path
    file: Path
    flags: tuple[str, ...]
    leave_out: tuple[str, ...] = ()
    parts: tuple[Path, ...] = ()  # further folders of sources
    links: tuple[str, ...] = ()

    def sources(self) -> list[Path]:
        found = (path for folder in (self.folder, *self.parts) for path in folder.glob("*.c"))
        return sorted(path for path in found if path.name not in self.leave_out)

    def stale(self) -> bool:
        """Whether it is missing or older than its sources."""
        if not self.file.exists():
            return True
        built = self.file.stat().st_mtime
        headers = (path for folder in (self.folder, *self.parts) for path in folder.glob("*.h"))
        return any(path.stat().st_mtime > built for path in (*self.sources(), *headers))


DELTA = Library(HERE, PACKAGE / "firmware" / f"_skydelta{SUFFIX}", ("-std=c11",), PROGRAMS, parts=(DECODER,))
# Envoy loads it; Envoy comes as a wheel for Linux.
LIMITS = Library(
    HERE / "gateway",
    PACKAGE / "gateway" / "envoy" / f"libskylift_limits{SUFFIX}",
    ("-std=gnu11", "-pthread"),
    links=("-lm",),
)
LIBRARIES = (DELTA, LIMITS) if sys.platform == "linux" else (DELTA,)


def compiler() -> str | None:
    """The C compiler: $CC, or the first of cc, gcc, clang that is there."""
    wanted = os.environ.get("CC")
    names = [wanted] if wanted else ["cc", "gcc", "clang"]
    return next((found for name in names if (found := shutil.which(name))), None)


def build() -> list[Path]:
    """The libraries, built if they have to be; none where there is no compiler."""
    cc = compiler()
    if cc is None:
        return [library.file for library in LIBRARIES if not library.stale()]
    for library in LIBRARIES:
        if library.stale():
            _compile(cc, library)
    return [library.file for library in LIBRARIES]


def _compile(cc: str, library: Library) -> None:
    fresh = library.file.with_name(f"{library.file.name}.{os.getpid()}")
    sources = map(str, library.sources())
    subprocess.run([cc, *library.flags, *FLAGS, "-o", str(fresh), *sources, *library.links], check=True)
    fresh.replace(library.file)


if __name__ == "__main__":
    built = build()
    print(f"built {', '.join(map(str, built))}" if built else "no C compiler here: nothing was built")
