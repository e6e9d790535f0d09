"""Programs that a bench runs, and what it says while it measures."""

import subprocess
import sys
from typing import Any


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


def run(words: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


def must(words: list[str], **options: Any) -> str:
    """What it prints; it must end well."""
    done = run(words, **options)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout
