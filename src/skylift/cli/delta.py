"""`skylift delta`: make, apply, inspect; offline."""

from pathlib import Path
from typing import Annotated

import typer

from skylift.cli.context import FormatOption, JsonOption
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format, Output

app = typer.Typer(help="Binary patches between two images.", no_args_is_help=True)
Old = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The image to start from.")]


@app.command()
def make(
    old: Old,
    new: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The image to reach.")],
    patch: Annotated[Path, typer.Argument(help="Where the patch goes.")],
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write a patch, if it is worth it: smaller than 0.7 of the new image. Exit 3 if not."""
    from skylift.firmware.delta import create_delta

    shown = Output(Format.JSON if as_json else output)
    made = create_delta(old, new, patch, shown.say)
    if made is None:
        raise Leave(Exit.FAILED, "not worth it: the patch is not below 0.7 of the full image")
    shown.one(made)


@app.command()
def apply(
    old: Old,
    patch: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    new: Annotated[Path, typer.Argument(help="Where the rebuilt image goes.")],
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Rebuild the new image from the old one and a patch."""
    import hashlib

    from skylift.firmware.delta import apply_delta

    image = apply_delta(old, patch)
    temporary = new.with_name(new.name + ".new")
    temporary.write_bytes(image)
    temporary.replace(new)
    shown = Output(Format.JSON if as_json else output)
    shown.one({"size": len(image), "sha256": hashlib.sha256(image).hexdigest()})


@app.command()
def inspect(
    patch: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """What a patch says it is."""
    from dataclasses import asdict

    from skylift.firmware.delta import read_header

    body = patch.read_bytes()
    shown = Output(Format.JSON if as_json else output)
    shown.one({**asdict(read_header(body)), "patch_size": len(body)})
