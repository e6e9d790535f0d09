"""`skylift demo`: the main job in front of your eyes. The third door: only here the testkit is reached."""

from typing import Annotated

import typer

from skylift.cli.exits import Exit, Leave


def demo(
    devices: Annotated[int, typer.Option(min=4, max=200, help="How many device agents.")] = 24,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server up and print its address.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
) -> None:
    """Real server, real agents: a good release goes out by delta, a bad one stops itself, a roll back."""
    try:
        from skylift.testkit.demo import run
    except ModuleNotFoundError as e:
        raise Leave(Exit.ERROR, f"{e.name} is not installed: pip install 'skylift[server,agent]'") from e
    raise typer.Exit(run(devices, keep=keep, as_json=as_json))
