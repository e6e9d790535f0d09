"""The library as its ecosystems want it, in one folder: `python clients/esp32/pack.py DIR [--roots ROOTS
[--ca PEM]]`.

Sources, examples and packaging of this folder, and the delta decoder of native/ beside them. With
`--roots` (what `skylift trust export` wrote) the Arduino example gets its roots.h. Standard library only.
"""

import argparse
import json
import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
DECODER = HERE.parents[1] / "native" / "decoder"
FOLDERS = ("src", "examples")
FILES = ("library.properties", "library.json", "idf_component.yml", "CMakeLists.txt", "Kconfig")
# The Arduino IDE passes no flags to a library: what the decoder is built as stands in its files.
BUILT_AS = (
    "#ifndef SD_MCU\n#define SD_MCU 1\n#endif\n#ifndef SD_DECODER_ONLY\n#define SD_DECODER_ONLY 1\n#endif\n"
    "#ifndef SD_NARROW\n#define SD_NARROW 1\n#endif\n"
    "#ifndef SD_ARCHS\n#define SD_ARCHS (1 << SD_XTENSA | 1 << SD_RISCV)\n#endif\n"
)


def pack(to: Path) -> None:
    """Everything into `to`, which must not exist."""
    to.mkdir(parents=True)
    for folder in FOLDERS:
        shutil.copytree(HERE / folder, to / folder)
    for name in FILES:
        shutil.copy(HERE / name, to / name)
    shutil.copy(HERE.parents[1] / "LICENSE", to / "LICENSE")
    decoder = to / "src" / "delta"
    decoder.mkdir()
    for path in DECODER.glob("*.[ch]"):
        (decoder / path.name).write_text((BUILT_AS if path.suffix == ".c" else "") + path.read_text())
    client = to / "src" / "skylift" / "delta.cpp"
    client.write_text(client.read_text().replace('#include "skydelta.h"', '#include "../delta/skydelta.h"'))


def roots_header(roots: Path, ca: Path | None) -> str:
    """C strings of the factory's roots and of the server's authority, and the log as it was then."""
    lines = ["#pragma once"]
    for name, path in (
        ("IMAGE_ROOT", roots / "image.root.json"),
        ("DIRECTOR_ROOT", roots / "director.root.json"),
        ("SERVER_CA", ca),
    ):
        body = path.read_text() if path else ""
        lines.append(f'static const char {name}[] = R"skylift({body})skylift";')
    pin = roots / "log.json"
    log = json.loads(pin.read_text()) if pin.exists() else {"size": 0, "root": "00" * 32}
    root = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(log["root"]))
    lines += [f"#define LOG_SIZE {log['size']}", f"static const unsigned char LOG_ROOT[32] = {{{root}}};"]
    return "\n".join(lines) + "\n"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("to", type=Path)
    words.add_argument("--roots", type=Path)
    words.add_argument("--ca", type=Path)
    said = words.parse_args()
    pack(said.to)
    if said.roots:
        header = said.to / "examples" / "Arduino" / "Minimal" / "roots.h"
        header.write_text(roots_header(said.roots, said.ca))


if __name__ == "__main__":
    main()
