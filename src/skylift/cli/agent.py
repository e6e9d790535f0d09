"""`skylift agent run`: the device agent. One of three doors by which the CLI reaches further than HTTP."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The Linux device agent.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `run` a command of its own."""


@app.command()
def run(
    config: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="agent.toml")],
) -> None:
    """Run this device until it is stopped."""
    from skylift.agent.__main__ import start

    raise typer.Exit(start(config))
