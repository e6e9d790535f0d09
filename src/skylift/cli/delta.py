"""`skylift delta`: make, apply, inspect, compare; offline."""

import time
from collections.abc import Iterator
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
    kind: Annotated[
        Kind | None, typer.Option("--format", help="Where it does not show: detools' patches.")
    ] = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Rebuild the new image from the old one and a patch, ours or another tool's."""
    import hashlib

    from skylift.firmware import delta, peers

    temporary = new.with_name(new.name + ".new")
    seen, size = hashlib.sha256(), 0
    body = patch.read_bytes()
    peer = kind if kind is not None and kind is not Kind.SKYLIFT else peers.format_of(body)
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
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """What a patch says it is; with its base, a picture: = in its place, > moved, . new."""
    from dataclasses import asdict

    from skylift.firmware import delta, purepython

    body = patch.read_bytes()
    header = delta.read_header(body)
    found: dict[str, Any] = {name: value for name, value in asdict(header).items() if value is not None}
    found["patch_size"] = len(body)
    if base is not None and header.format == "skylift":
        matches = purepython.matches_of(base.read_bytes(), body)
        found["matches"] = len(matches)
        found["matched"] = sum(match.length for match in matches)
        found["picture"] = "".join(_cells(matches, header.target_size))
    Output(Format.JSON if as_json else output).one(found)


def _cells(matches: list[Any], size: int) -> Iterator[str]:
    """One sign per equal part of the target: what most of it is."""
    step = max(1, -(-size // CELLS))
    for start in range(0, size, step):
        share = {"=": 0, ">": 0, ".": min(step, size - start)}
        for match in matches:
            here = min(match.at + match.length, start + step) - max(match.at, start)
            if here > 0:
                share["=" if match.at == match.start else ">"] += here
                share["."] -= here
        yield max(share, key=lambda sign: share[sign])


@app.command()
def compare(old: Old, new: New, output: FormatOption = Format.TABLE, as_json: JsonOption = False) -> None:
    """Every format that can be made here: size, times, memory of our decoder. What is missing is said."""
    from skylift.core.errors import Rejected
    from skylift.firmware import delta, native, peers

    shown = Output(Format.JSON if as_json else output)
    before, after = old.read_bytes(), new.read_bytes()
    rows: list[dict[str, Any]] = []

    def add(name: str, make: Any, apply: Any, memory: int | None = None) -> None:
        try:
            begun = time.perf_counter()
            patch = make()
            made = time.perf_counter()
            same = apply(patch) == after
        except (delta.DeltaError, Rejected) as e:
            shown.say(f"{name}: {e}")
            return
        ended = time.perf_counter()
        row = {"format": name, "size": len(patch), "of_new": round(len(patch) / max(1, len(after)), 4)}
        times = {"make_s": round(made - begun, 2), "apply_s": round(ended - made, 2)}
        rows.append({**row, **times, "memory": memory, "same": same})

    for profile, memory in delta.MEMORY.items() if native.available() else ():
        add(
            f"skylift {profile}",
            lambda profile=profile: native.make(before, after, profile).patch,
            lambda patch: delta.apply_delta(before, patch),
            memory,
        )
    for name in peers.FORMATS:
        add(
            name,
            lambda name=name: peers.make(name, before, after),
            lambda patch, name=name: peers.apply(name, before, patch),
        )
    rows.sort(key=lambda row: row["size"])
    shown.many(rows, ["format", "size", "of_new", "make_s", "apply_s", "memory", "same"])
    if not all(row["same"] for row in rows):
        raise Leave(Exit.FAILED, "a patch did not rebuild the image")
