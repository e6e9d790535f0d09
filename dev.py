#!/usr/bin/env python3
"""Everything a contributor runs: `python3 dev.py demo | test | check | bench NAME | docs`.

Standard library only, any Python from 3.11 on. It makes .venv, installs requirements.lock with its hashes,
then the project itself, and runs. Nothing is installed outside .venv, but for the system programs that tests
need (PostgreSQL, mosquitto): those by apt, where this runs as root on Debian or Ubuntu.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
OURS_FIRST = f"{VENV / 'bin'}:{os.environ.get('PATH', '')}"
LOCK, PROJECT = ROOT / "requirements.lock", ROOT / "pyproject.toml"
BENCHES = ROOT / "bench"

LIBFUZZER = "llvm-*/lib/clang/*/lib/*/libclang_rt.fuzzer*.a"
# What the tests start themselves: a program that shows it is there, and the package that brings it.
SYSTEM = {
    "postgresql": (lambda: bool(list(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), "postgresql"),
    "softhsm2": (lambda: bool(shutil.which("softhsm2-util")), "softhsm2"),
    "mosquitto": (
        lambda: bool(shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")),
        "mosquitto",
    ),
    "chromium": (lambda: bool(shutil.which("chromium")), "chromium"),
    "g++": (lambda: bool(shutil.which("g++") and shutil.which("gcc")), "g++"),
    "clang": (lambda: bool(shutil.which("clang++")), "clang"),
    "libFuzzer": (lambda: bool(list(Path("/usr/lib").glob(LIBFUZZER))), "libclang-rt-dev"),
    "OpenSSL's headers": (lambda: Path("/usr/include/openssl/ssl.h").exists(), "libssl-dev"),
    "redis": (lambda: bool(shutil.which("redis-server")), "redis-server"),
    "squashfs": (lambda: bool(shutil.which("mksquashfs")), "squashfs-tools"),
    "micropython": (lambda: bool(shutil.which("micropython", path=OURS_FIRST)), "micropython"),
    "faketime": (lambda: bool(shutil.which("faketime")), "faketime"),
    "bsdiff": (lambda: bool(shutil.which("bspatch")), "bsdiff"),
    "xdelta3": (lambda: bool(shutil.which("xdelta3")), "xdelta3"),
    "zstd": (lambda: bool(shutil.which("zstd")), "zstd"),
}
# Where this Debian, 12, has no package of that name the next one has: see `unpacked`.
NEXT_DEBIAN, FROM_NEXT = "trixie", frozenset({"micropython"})


def main(words: list[str]) -> int:
    if sys.version_info < (3, 11):
        print(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    if not words or words[0] not in COMMANDS:
        print(f"usage: python3 dev.py {' | '.join(COMMANDS)}\n\n{__doc__}", file=sys.stderr)
        return 2
    os.chdir(ROOT)
    install(beside=parts_for(words))
    return COMMANDS[words[0]](words[1:])


# --- the environment -----------------------------------------------------------------------------------


def install(beside: Callable[[], None]) -> None:
    """.venv with exactly what the lock says; done once per lock and place: a moved one is broken.

    `beside` is done at the same time: one waits for the network where the other unpacks.
    """
    parts = (LOCK.read_bytes(), PROJECT.read_bytes(), sys.version.encode(), str(ROOT).encode())
    wanted = hashlib.sha256(b"".join(parts)).hexdigest()
    stamp = VENV / "skylift.stamp"
    if stamp.exists() and stamp.read_text() == wanted and PYTHON.exists():
        beside()
    else:
        say("making .venv from requirements.lock (once)")
        make_venv()
        with ThreadPoolExecutor(1) as other:
            waiting = other.submit(beside)
            fill_venv()
            waiting.result()
        stamp.write_text(wanted)
    # After `beside`, which may have brought the compiler; does nothing when it is fresh.
    run([PYTHON, ROOT / "native" / "build.py"], stdout=subprocess.DEVNULL)
    compiled(ROOT / "src")


def fill_venv() -> None:
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    run([*pip, "--require-hashes", "-r", LOCK])
    run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT])
    compiled(VENV)


def compiled(place: Path) -> None:
    """Byte code for what is new there, on every core: pip uses one, and where PYTHONDONTWRITEBYTECODE is set
    each of a demo's or a test run's hundreds of processes would compile the project anew."""
    ours = [] if place != VENV else ["-x", "/tests?/|/testing/"]
    words = [PYTHON, "-m", "compileall", "-q", "-q", "-j", "0", *ours, place]
    subprocess.run([str(word) for word in words], check=False, stdout=subprocess.DEVNULL)  # a hurry, no need


def make_venv() -> None:
    """Debian keeps ensurepip in a package of its own."""
    try:
        import ensurepip  # noqa: F401 - only whether it is there
    except ModuleNotFoundError:
        package = f"python3.{sys.version_info.minor}-venv"
        if not may_install():
            sys.exit(
                f"this Python has no ensurepip: install {package} (apt-get install {package}), then again"
            )
        apt([package])
    venv.create(VENV, with_pip=True, clear=True)


def may_install() -> bool:
    """Whether system packages may be installed here: root, on Debian or Ubuntu."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and bool(shutil.which("apt-get"))


def apt(packages: list[str]) -> None:
    say(f"installing {', '.join(packages)} by apt")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Stopping package scripts from starting servers: the tests start their own, in directories of their own.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        run(["apt-get", "update", "-qq"], env=quiet, stdout=subprocess.DEVNULL)
        here = [package for package in packages if silent(["apt-cache", "show", package])]
        install_ = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *here]
        run(install_, env=quiet, stdout=subprocess.DEVNULL)
        for package in sorted(FROM_NEXT.intersection(packages).difference(here)):
            unpacked(package)
    finally:
        if ours:
            policy.unlink()


def unpacked(package: str) -> None:
    """A program that this Debian does not have, from the next one: unpacked into .venv and run with the C
    library that it came with. Nothing of it is installed."""
    root, program = VENV / package, VENV / "bin" / package
    shutil.rmtree(root, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        for archive in downloaded(package, Path(folder)):
            run(["dpkg-deb", "-x", archive, root])
    loader = next((root / "usr" / "lib").glob("*/ld-linux*.so.*"), None)
    if loader is None:
        return say(f"no {package}: {NEXT_DEBIAN} cannot be had through this system's apt")
    words = f'"{loader}" --library-path "{loader.parent}" "{root}/usr/bin/{package}"'
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    return None


def downloaded(package: str, own: Path) -> list[Path]:
    """The next Debian's package and everything it needs, from this system's own mirror, fetched and verified
    by apt with all its lists in this folder. None where that cannot be had."""
    asked = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    mirrors = re.findall(r"^Debian main [^- ]+ (\S+)$", told, re.MULTILINE)  # not of -updates, -security
    if not mirrors:
        return []
    for name in ("lists/partial", "cache/archives/partial"):
        (own / name).mkdir(parents=True)
    (own / "status").touch()  # as if nothing were installed
    (own / "sources.list").write_text(f"deb {mirrors[0]} {NEXT_DEBIAN} main\n")
    places = {"State": own, "State::status": own / "status", "Cache": own / "cache"}
    places |= {"Etc::SourceList": own / "sources.list", "Etc::SourceParts": Path(os.devnull)}
    quiet = ["-qq", "-oAcquire::Languages=none", "-oAPT::Install-Recommends=false"]
    apt_get = ["apt-get", *quiet, *(f"-oDir::{name}={place}" for name, place in places.items())]
    for words in (["update"], ["install", "-y", "--download-only", package]):
        if not silent([*apt_get, *words]):
            return []
    return sorted((own / "cache" / "archives").glob("*.deb"))


def silent(words: list[str]) -> bool:
    """Whether it worked."""
    quiet = subprocess.DEVNULL
    return subprocess.run(words, stdout=quiet, stderr=quiet, check=False).returncode == 0


def parts_for(words: list[str]) -> Callable[[], None]:
    """What brings the system's programs that these words need."""
    if words[0] == "test":
        return lambda: system_parts(tuple(SYSTEM))
    if "--conformance" in words:  # the suite shows its clients other times by it
        return lambda: system_parts(("faketime",))
    return lambda: None


def system_parts(needed: tuple[str, ...]) -> None:
    """Install what the tests need and is missing, where that is allowed; else say what will be skipped."""
    missing = {name: SYSTEM[name][1] for name in needed if not SYSTEM[name][0]()}
    if missing and may_install():
        apt(sorted(missing.values()))
    elif missing:
        say(f"not installed: {', '.join(missing)}; their tests will be skipped, by name")


# --- the commands --------------------------------------------------------------------------------------


def demo(words: list[str]) -> int:
    return code([PYTHON, "-m", "skylift", "demo", *words])


RUFF = ([PYTHON, "-m", "ruff", "check", "."], [PYTHON, "-m", "ruff", "format", "--check", "."])
MYPY = [PYTHON, "-m", "mypy"]


def lint() -> int:
    """ruff; 0 when it is silent."""
    return next((failed for step in RUFF if (failed := code(step))), 0)


def check(words: list[str]) -> int:
    """Lint, types and the fast tests: after every step."""
    few = ["-m", "not slow and not postgresql"]
    return lint() or beside_types([PYTHON, "-m", "pytest", "-q", *few, *workers(words), *words])


def test(words: list[str]) -> int:
    """Everything. In CI (CI=true) nothing may be skipped."""
    return lint() or beside_types([PYTHON, "-m", "pytest", "-q", *workers(words), *words])


def beside_types(tests: list[object]) -> int:
    """The tests, and mypy at the same time: it needs one core. What it says comes after what they say."""
    with ThreadPoolExecutor(1) as other:
        asked = [str(word) for word in MYPY]
        types = other.submit(subprocess.run, asked, capture_output=True, text=True, check=False)
        failed = code(tests)
        said = types.result()
    print(said.stdout + said.stderr, end="", file=sys.stderr if said.returncode else sys.stdout, flush=True)
    return failed or said.returncode


def workers(words: list[str]) -> list[str]:
    """One more than cores: many tests wait for a server, a soak, a time-out, and leave their core to others.
    None where somebody asks for certain tests."""
    return ["-n", str(min(6, (os.cpu_count() or 2) + 1))] if not words else []


def bench(words: list[str]) -> int:
    """`bench NAME [--json ...]`: a script of bench/."""
    names = sorted(path.stem.replace("_", "-") for path in BENCHES.glob("*.py"))
    if not words or words[0] not in names:
        print(f"usage: python3 dev.py bench {' | '.join(names)} [--json]", file=sys.stderr)
        return 2
    return code([PYTHON, BENCHES / f"{words[0].replace('-', '_')}.py", *words[1:]])


def docs(words: list[str]) -> int:
    """Write the generated parts anew, then check links, code blocks, and the names the tour speaks of."""
    written = code([PYTHON, ROOT / "docs" / "generate.py"])
    return written or code([PYTHON, "-m", "pytest", "-q", "tests/docs", *words])


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "test": test,
    "check": check,
    "bench": bench,
    "docs": docs,
}


def say(sentence: str) -> None:
    print(f"dev.py: {sentence}", file=sys.stderr, flush=True)


def run(words: list[object], **options: object) -> None:
    """A step that must work."""
    done = subprocess.run([str(word) for word in words], check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"dev.py: {' '.join(map(str, words[:4]))} failed with exit code {done.returncode}")


def code(words: list[object]) -> int:
    """A command's exit code."""
    try:
        return subprocess.run([str(word) for word in words], check=False).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
