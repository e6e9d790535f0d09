"""The roots that a factory puts into a device, in the form its software reads.

`linux`: two files; `esp-idf`: a C header; `micropython`: a Python module. They are the newest that this desk
has verified: a device follows the chain from there. Without them nothing is ever installed.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from skylift.core.errors import invalid
from skylift.trust.ceremony import Desk, export_linux, first_roots
from skylift.trust.compact import ROOT_MAX

Roots = dict[str, bytes]


def export(desk: Desk, form: str, to: Path) -> list[Path]:
    """Write the roots in this form below `to`; what was written. Raises `Rejected` for a desk without roots
    and for a root that no microcontroller would take."""
    if form == "linux":
        return export_linux(desk, to)
    roots = first_roots(desk)
    for repo, body in roots.items():
        if len(body) > ROOT_MAX:
            raise invalid(f"{repo} root", f"{len(body)} bytes", f"at most {ROOT_MAX} for a microcontroller")
    name, make = FORMS[form]
    to.mkdir(parents=True, exist_ok=True)
    path = to / name
    path.write_text(make(roots))
    return [path]


def _header(roots: Roots) -> str:
    """The bytes as arrays, without a terminating zero, and their sizes."""
    parts = [
        "/* The roots this device trusts from the factory on; made by `skylift trust export --esp-idf`. */",
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
    return "\n".join([*parts, "#endif", ""])


def _module(roots: Roots) -> str:
    """Two constants; `compact.Device` takes them as they are."""
    head = "# The roots this device trusts from the factory on; made by `skylift trust export --micropython`."
    return "\n".join([head, *(f"{repo.upper()}_ROOT = {body!r}" for repo, body in roots.items()), ""])


FORMS: dict[str, tuple[str, Callable[[Roots], str]]] = {
    "esp-idf": ("skylift_roots.h", _header),
    "micropython": ("skylift_roots.py", _module),
}
