"""Hatchling's hook: compile the delta core before a wheel is packed, or before an editable install."""

import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeHook(BuildHookInterface):
    """With a compiler the wheel is the platform's; without one it is pure, and as correct."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        native = Path(self.root) / "native"
        if self.target_name != "wheel" or not native.is_dir():
            return
        sys.path.insert(0, str(native))
        try:
            import build as core
        finally:
            sys.path.pop(0)
        libraries = core.build()
        if not libraries:
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"  # ctypes: of the platform, of no Python in particular
        build_data["artifacts"] += [f"/{path.relative_to(self.root).as_posix()}" for path in libraries]
