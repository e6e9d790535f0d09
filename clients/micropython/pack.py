"""The library as a folder to copy onto a board or to install with mip: `python pack.py OUT [--roots DIR]
[--url URL]`.

    OUT/skylift/            the client, with the compact verifier of the source tree in it
    OUT/skylift_roots.py    where --roots names the folder that `skylift trust export --micropython` wrote
    OUT/package.json        for `mip install URL/package.json`; --url says where OUT will be served, for
                            boards before MicroPython 1.26, which want whole addresses in it

Standard library only.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src" / "skylift"
VERIFIER = {
    "trust": ("__init__.py", "compact.py", "p256.py", "plain.py"),
    "core": ("__init__.py", "merkleproof.py"),
}
VERSION = "1.0.0"


def pack(out: Path, roots: Path | None = None, url: str = "") -> list[Path]:
    """What was written, below `out`."""
    files = {Path("skylift") / path.name: path for path in sorted((HERE / "skylift").glob("*.py"))}
    for room, names in VERIFIER.items():
        files |= {Path("skylift") / room / name: SOURCE / room / name for name in names}
    if roots is not None:
        files[Path("skylift_roots.py")] = roots / "skylift_roots.py"
    for place, source in files.items():
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / place)
    urls = [[place.as_posix(), f"{url}{place.as_posix()}"] for place in files]
    listed = json.dumps({"urls": urls, "deps": [], "version": VERSION}, indent=1)
    (out / "package.json").write_text(listed + "\n")
    return [out / place for place in files] + [out / "package.json"]


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("out", type=Path)
    asked.add_argument("--roots", type=Path, help="a folder with skylift_roots.py")
    asked.add_argument("--url", default="", help="where it will be served: https://HOST/PATH/")
    words = asked.parse_args()
    if words.roots and not (words.roots / "skylift_roots.py").exists():
        print(f"--roots {words.roots}: there is no skylift_roots.py in it", file=sys.stderr)
        return 2
    written = pack(words.out, words.roots, words.url and words.url.rstrip("/") + "/")
    print(f"{words.out}: {len(written)} files, {sum(path.stat().st_size for path in written)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
