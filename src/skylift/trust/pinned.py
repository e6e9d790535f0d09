"""What a factory puts into a device, in the form its software reads: both roots, and the log's checkpoint.

`linux`: files; `esp-idf`: a C header; `micropython`: a Python module. They are the newest that this desk has
verified: a device follows both chains from there, and takes no log that does not go on from that one. Without
roots nothing is ever installed; a desk that has not verified the log yet (`skylift trust log verify`) exports
none, and the device pins the first that it sees.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile

from skylift.core.errors import invalid
from skylift.trust.ceremony import Desk, export_linux, first_roots
from skylift.trust.compact import ROOT_MAX
from skylift.trust.log import Pin

Roots = dict[str, bytes]
NO_LOG = Pin(0, "")


def export(desk: Desk, form: str, to: Path) -> list[Path]:
    """Write the roots in this form below `to`; what was written. Raises `Rejected` for a desk without roots
    and for a root that no microcontroller would take."""
    pin = Pin.read(desk.public("log"))
    if form == "linux":
        written = export_linux(desk, to)
        if pin is not None:
            written.append(to / "log.json")
            copyfile(desk.public("log"), written[-1])
        return written
    roots = first_roots(desk)
    for repo, body in roots.items():
        if len(body) > ROOT_MAX:
            raise invalid(f"{repo} root", f"{len(body)} bytes", f"at most {ROOT_MAX} for a microcontroller")
    name, make = FORMS[form]
    to.mkdir(parents=True, exist_ok=True)
    path = to / name
    path.write_text(make(roots, pin or NO_LOG))
    return [path]


def _header(roots: Roots, pin: Pin) -> str:
    """The bytes as arrays, without a terminating zero, and their sizes. A log of 0 entries: none."""
    parts = [
        "/* What this device trusts from the factory on; made by `skylift trust export --esp-idf`. */",
        "#ifndef SKYLIFT_ROOTS_H",
        "#define SKYLIFT_ROOTS_H",
        "#include <stddef.h>",
    ]
    for repo, body in roots.items():
        rows = [", ".join(f"0x{byte:02x}" for byte in body[at : at + 16]) for at in range(0, len(body), 16)]
        parts += [
            f"/* sha256 {hashlib.sha256(body).hexdigest()} */",
            f"static const unsigned char skylift_{repo}_root[] = {{",
            ",\n".join(f"    {row}" for row in rows),
            "};",
            f"static const size_t skylift_{repo}_root_size = sizeof skylift_{repo}_root;",
        ]
    root = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(pin.root) or bytes(32))
    parts += [
        "/* The transparency log as it was then: how many entries, and the root over them. */",
        f"#define SKYLIFT_LOG_SIZE {pin.size}ULL",
        f"static const unsigned char skylift_log_root[32] = {{{root}}};",
    ]
    return "\n".join([*parts, "#endif", ""])


def _module(roots: Roots, pin: Pin) -> str:
    """Constants that `compact.Device` takes as they are."""
    head = "# What this device trusts from the factory on; made by `skylift trust export --micropython`."
    log = [f"LOG_SIZE = {pin.size}", f'LOG_ROOT = "{pin.root}"']
    return "\n".join([head, *(f"{repo.upper()}_ROOT = {body!r}" for repo, body in roots.items()), *log, ""])


FORMS: dict[str, tuple[str, Callable[[Roots, Pin], str]]] = {
    "esp-idf": ("skylift_roots.h", _header),
    "micropython": ("skylift_roots.py", _module),
}
