"""The operator's hands: talks HTTP, signs offline. Never the store or the engine: if the CLI could cheat, the
API would stay incomplete."""

import sys


def main() -> None:
    """The `skylift` command. Errors are one line and an exit code, never a traceback."""
    from skylift.cli.app import run  # typer and rich only when the command runs

    sys.exit(run())
