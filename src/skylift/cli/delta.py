"""`skylift delta`: make, apply, inspect, compare; offline."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli.context import FormatOption, JsonOption
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format, Output

app = typer.Typer(help="Binary patches between two images.", no_args_is_help=True)
Old = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The image to start from.")]
New = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The image to reach.")]
CELLS = 64  # of the picture


class Profile(StrEnum):
    """What the devices have for applying it."""

    MCU_16K = "mcu-16k"
    MCU_64K = "mcu-64k"
    LINUX_16M = "linux-16m"


class Kind(StrEnum):
    """Our own, and other tools'."""

    SKYLIFT = "skylift"
    BSDIFF = "bsdiff"
    DETOOLS = "detools"
    HDIFFPATCH = "hdiffpatch"
    ZSTD = "zstd"
    VCDIFF = "vcdiff"


@app.command()
def make(
    old: Old,
    new: New,
    patch: Annotated[Path, typer.Argument(help="Where the patch goes.")],
    profile: Annotated[
        Profile | None, typer.Option(help="The devices' memory; else by what the image is for.")
    ] = None,
    kind: Annotated[Kind, typer.Option("--format", help="Another tool's, for its clients.")] = Kind.SKYLIFT,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write a patch, if it is worth it: smaller than 0.7 of the new image. Exit 3 if not."""
    from skylift.firmware import delta, peers

    shown = Output(Format.JSON if as_json else output)
    if kind is not Kind.SKYLIFT:
        body = peers.make(kind, old.read_bytes(), new.read_bytes())
        patch.write_bytes(body)
        shown.one({"type": kind, "patch_size": len(body), "full_size": new.stat().st_size})
        return
    made = delta.create_delta(old, new, patch, shown.say, profile=profile)
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
    """Rebuild the new image from the old one and a patch, ours or another tool's: the patch tells which."""
    import hashlib

    from skylift.firmware import delta, peers

    temporary = new.with_name(new.name + ".new")
    seen, size = hashlib.sha256(), 0
    body = patch.read_bytes()
    peer = None if body.startswith(delta.MAGICS) else peers.format_of(body)
    try:
        with temporary.open("wb") as file:

            def write(piece: bytes) -> None:
                nonlocal size
                seen.update(piece)
                size += file.write(piece)

            if peer is None:
                delta.rebuild(old, body, write)
            else:
                write(peers.apply(peer, old.read_bytes(), body))
        temporary.replace(new)
    finally:
        temporary.unlink(missing_ok=True)
    shown = Output(Format.JSON if as_json else output)
    shown.one({"size": size, "sha256": seen.hexdigest()})


@app.command()
def inspect(
    patch: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    base: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The old image: shows what moved.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Where a picture goes, with --base.")] = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """What a patch says it is; with its base, what stands where: = in its place, > moved, o packed again,
    . new."""
    from skylift.core.errors import invalid
    from skylift.firmware import delta, picture

    if svg and not base:
        raise invalid("svg", svg, "needs --base: a patch alone does not tell the old image's size")
    body = patch.read_bytes()
    found = delta.facts(body)
    told = picture.stretches(base.read_bytes(), body) if base else None
    if base and told:
        size, stretches = told
        found |= {"target_size": size, "bytes": picture.shares(stretches)}
        found["picture"] = picture.bar(stretches, size, CELLS)
        if svg:
            title = f"{patch.name}: {len(body):,} bytes"
            svg.write_text(picture.svg(stretches, base.stat().st_size, size, title))
    elif svg:
        raise Leave(Exit.FAILED, f"no picture: {found['format']} patches do not tell what stands where")
    Output(Format.JSON if as_json else output).one(found)


@app.command()
def compare(old: Old, new: New, output: FormatOption = Format.TABLE, as_json: JsonOption = False) -> None:
    """Every format that can be made here: size, seconds, memory that making and applying come to need.

    What cannot be made is said."""
    from dataclasses import asdict

    from skylift.firmware import delta, trial

    shown = Output(Format.JSON if as_json else output)
    rows: list[dict[str, Any]] = []
    for name in trial.names(old, new):
        try:
            rows.append(asdict(trial.run(name, old, new)))
        except delta.DeltaError as e:
            shown.say(f"{name}: {e}")
    rows.sort(key=lambda row: row["size"])
    columns = ["format", "size", "of_new", "make_s", "apply_s", "make_memory", "apply_memory", "same"]
    shown.many(rows, columns)
    if not all(row["same"] for row in rows):
        raise Leave(Exit.FAILED, "a patch did not rebuild the image")
