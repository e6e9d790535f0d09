"""Real Linux images for `bench delta --linux`: root filesystems and kernels from Debian's own packages.

A root filesystem as it was released against the same with all security updates since, and against one in
which only openssl was updated (the hotfix); arm64 and armhf; as ext4 and as squashfs (none, gzip, xz, zstd,
lz4). Kernels: the release's against the security archive's, for arm64, armhf and amd64; armhf's and amd64's
as shipped (compressed) and opened. All times in the images are fixed; documentation is left out, as it is on
devices. Packages are extracted, not configured: no foreign code runs.

Needs root, mmdebstrap, apt, mksquashfs and mke2fs (Debian: `apt-get install mmdebstrap squashfs-tools
e2fsprogs`), and the network. Makes FOLDER/NAME/{old.bin,new.bin}; what is there is left alone.

    python3 dev.py bench linux-images FOLDER [--arch arm64] [--mirror URL]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parts.shell import say
from skylift.firmware import codecs, containers

RELEASE = "bookworm"
EPOCH = "1735689600"  # 2025-01-01: every time in an image
UUID = "5f7c1f7e-0000-4000-8000-000000000005"
SETS = ("?essential", "~prequired", "~pimportant")
PACKAGES = (
    "openssl libssl3 ca-certificates curl wget openssh-server systemd udev dbus "
    "wpasupplicant iproute2 nftables python3-minimal sqlite3 mosquitto nginx-light bluez gnutls-bin vim-tiny"
)
LEFT_OUT = tuple(
    f"usr/share/{name}" for name in ("doc", "man", "info", "locale", "lintian", "bug", "zoneinfo")
)
HOTFIX = ("openssl", "libssl3")
SQUASHFS = ("none", "gzip", "xz", "zstd", "lz4")
KERNELS = {"arm64": "arm64", "armhf": "armmp", "amd64": "amd64"}
ROOTS = ("arm64", "armhf")


class Failed(Exception):
    """A step did not work; the other architectures may."""


def run(*words: object, quiet: bool = True) -> None:
    """A step that must work; its last words are shown when it does not."""
    done = subprocess.run([str(word) for word in words], check=False, capture_output=quiet, env=environment())
    if done.returncode:
        say((done.stdout or b"").decode()[-1500:], (done.stderr or b"").decode()[-1500:])
        raise Failed(f"{' '.join(map(str, words[:3]))} failed with exit code {done.returncode}")


def environment() -> dict[str, str]:
    return {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "E2FSPROGS_FAKE_TIME": EPOCH, "LC_ALL": "C"}


def sources(mirror: str, security: bool) -> list[str]:
    lines = [f"deb {mirror}/debian {RELEASE} main"]
    if security:
        lines.append(f"deb {mirror}/debian-security {RELEASE}-security main")
    return lines


# --- root filesystems --------------------------------------------------------------------------------------


def extract(where: Path, arch: str, mirror: str, security: tuple[str, ...] | None) -> None:
    """Packages of one release, extracted. `security`: none of its updates (None), all of them (()), or
    these."""
    words = ["mmdebstrap", "--mode=root", "--variant=extract", f"--architectures={arch}"]
    words += [
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--include={name}" for name in (*SETS, *PACKAGES.split())),
    ]
    if security:
        pins = "".join(
            f"Package: {name}\\nPin: release n={RELEASE}-security\\nPin-Priority: 990\\n\\n"
            for name in security
        )
        pins += f"Package: *\\nPin: release n={RELEASE}-security\\nPin-Priority: 100\\n"
        words.append(f"--setup-hook=printf '{pins}' > \"$1\"/etc/apt/preferences")
    run(*words, RELEASE, where, *sources(mirror, security is not None))
    for gone in (
        "var/lib/apt",
        "var/cache/apt",
        "etc/apt",
        "dev",
        "var/log",
        "var/lib/dpkg/available",
        *LEFT_OUT,
    ):
        path = where / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    run("find", where, "-exec", "touch", "-h", "-d", f"@{EPOCH}", "{}", "+")


def squashed(tree: Path, image: Path, how: str) -> None:
    words = ["mksquashfs", tree, image, "-noappend", "-no-progress", "-no-xattrs", "-processors", "2"]
    run(*words, *(["-noI", "-noD", "-noF", "-noX"] if how == "none" else ["-comp", how]))


def ext4(tree: Path, image: Path, size_mb: int) -> None:
    words = [
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-d",
        tree,
        "-U",
        UUID,
        "-E",
        f"hash_seed={UUID},lazy_itable_init=0",
    ]
    run(*words, "-O", "^has_journal,^metadata_csum", "-m", "0", image, f"{size_mb}M")


def roots(folder: Path, arch: str, mirror: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        trees = {}
        for name, security in (("base", None), ("hotfix", HOTFIX), ("security", ())):
            trees[name] = Path(scratch) / name
            say(f"{arch}: packages, {name}")
            extract(trees[name], arch, mirror, security)
        size = int(subprocess.check_output(["du", "-sm", str(trees["security"])]).split()[0])
        for how in (*(f"squashfs-{how}" for how in SQUASHFS), "ext4"):
            images = {}
            for name, tree in trees.items():
                images[name] = Path(scratch) / f"{name}.{how}"
                if how == "ext4":
                    ext4(tree, images[name], size + size // 8 + 16)
                else:
                    squashed(tree, images[name], how.removeprefix("squashfs-"))
            for name in ("hotfix", "security"):
                kept(folder / f"{arch}-{how}-{name}", images["base"], images[name])
            for image in images.values():
                image.unlink()


# --- kernels ---------------------------------------------------------------------------------------------


def apt(scratch: Path, arch: str, mirror: str, security: bool) -> list[str]:
    """apt-get's words for a configuration of its own, with the package lists of one release fetched."""
    root = scratch / ("security" if security else "base")
    for part in ("lists/partial", "archives/partial", "empty"):
        (root / part).mkdir(parents=True)
    (root / "sources.list").write_text("\n".join(sources(mirror, security)[-1:]) + "\n")
    (root / "status").touch()
    options = {
        "Dir::State::lists": root / "lists",
        "Dir::State::status": root / "status",
        "Dir::Cache": root,
        "Dir::Etc::sourcelist": root / "sources.list",
        "Dir::Etc::sourceparts": root / "empty",
        "Dir::Etc::preferencesparts": root / "empty",
        "APT::Architecture": arch,
        "APT::Architectures": arch,
        "APT::Sandbox::User": "root",
    }
    words = [f"-o={name}={value}" for name, value in options.items()]
    run("apt-get", *words, "update")
    return words


def kernel(scratch: Path, arch: str, mirror: str, security: bool) -> Path:
    """The kernel of one release, out of its package."""
    words = apt(scratch, arch, mirror, security)
    said = subprocess.check_output(
        ["apt-cache", *words, "depends", f"linux-image-{KERNELS[arch]}"], text=True
    )
    package = next(line.split()[-1] for line in said.splitlines() if "Depends:" in line)
    where = scratch / f"kernel-{security}"
    where.mkdir()
    subprocess.run(["apt-get", *words, "download", package], check=True, cwd=where, capture_output=True)
    run("dpkg-deb", "-x", next(where.glob("*.deb")), where)
    return next((where / "boot").glob("vmlinuz-*"))


def held(kernel: Path) -> Path | None:
    """What a kernel holds that unpacks itself, as a file beside it; None for another."""
    body = kernel.read_bytes()
    units = [unit for unit in containers.units(memoryview(body)) if unit.kind not in codecs.IN_PLACE]
    if not units:
        return None
    unpacked = kernel.with_name(f"{kernel.name}.unpacked")
    packed = body[units[0].at : units[0].end]
    unpacked.write_bytes(b"".join(codecs.opened(units[0].kind, packed, units[0].size)))
    return unpacked


def kernels(folder: Path, arch: str, mirror: str) -> None:
    say(f"{arch}: kernels")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        old, new = (kernel(Path(scratch), arch, mirror, security) for security in (False, True))
        kept(folder / f"kernel-{arch}", old, new)
        opened = [held(path) for path in (old, new)]
        if all(opened):
            kept(folder / f"kernel-{arch}-unpacked", *(path for path in opened if path))


def kept(where: Path, old: Path, new: Path) -> None:
    """The pair, under its name at once or not at all."""
    made = where.with_name(f".{where.name}")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    shutil.copyfile(old, made / "old.bin")
    shutil.copyfile(new, made / "new.bin")
    made.rename(where)
    say(f"{where.name}: {old.stat().st_size:,} -> {new.stat().st_size:,}")


def own_mirror() -> str:
    """The mirror that this machine's apt uses for Debian."""
    said = subprocess.check_output(["apt-get", "indextargets", "--format", "$(REPO_URI)"], text=True)
    found = next((uri for uri in said.split() if uri.rstrip("/").endswith("/debian")), None)
    if found is None:
        sys.exit("apt knows no mirror of Debian here: --mirror URL")
    return found.rstrip("/").removesuffix("/debian")


def missing() -> Iterator[str]:
    for program in ("mmdebstrap", "apt-get", "mksquashfs", "mke2fs"):
        if not shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            yield program
    if os.geteuid() != 0:
        yield "root"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", action="append", choices=sorted(KERNELS))
    parser.add_argument(
        "--mirror", help="what holds debian and debian-security; else where apt has its own from"
    )
    asked = parser.parse_args()
    if lacking := list(missing()):
        say(f"not here: {', '.join(lacking)}")
        return 1
    asked.mirror = asked.mirror or own_mirror()
    asked.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for arch in asked.arch or KERNELS:
        try:
            if not (asked.folder / f"kernel-{arch}").exists():
                kernels(asked.folder, arch, asked.mirror)
            if arch in ROOTS and not (asked.folder / f"{arch}-ext4-security").exists():
                roots(asked.folder, arch, asked.mirror)
        except Failed as e:
            say(f"{arch}: {e}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
