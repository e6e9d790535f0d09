"""`skylift trust log`: the transparency log, shown, saved, and held to what it said before."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli.context import FormatOption, JsonOption, ServerOption, Session, TokenOption, session
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format
from skylift.cli.trust import DEFAULT_DESK, KeysOption
from skylift.core.errors import TrustError, invalid

app = typer.Typer(help="The transparency log: everything ever published and ordered.", no_args_is_help=True)
PAGE = 1000


@app.command()
def show(
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many of the latest entries.")] = 20,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Its size and root, the latest entries, and what devices saw that is not of this log."""
    this = session(server, token, output, as_json)
    found = this.client.get("/api/log/checkpoint")
    page = this.client.get("/api/log/entries", start=max(0, found["size"] - last), limit=last)["items"]
    strange = [one for one in this.client.get("/api/log/witnessed")["items"] if not one["agrees"]]
    if this.output.form is Format.JSON:
        this.output.one({"checkpoint": found, "entries": page, "strange": strange})
        return
    at = datetime.fromtimestamp(found["at"], UTC)
    this.output.one(
        found, [("entries", found["size"]), ("root", found["root"]), ("signed", f"{at:%Y-%m-%d %H:%M} UTC")]
    )
    this.output.many(page, ("number", "at", "entry"))
    for one in strange:
        this.output.say(
            f"{one['device_id']} was shown a log of {one['size']} entries with root {one['root'][:16]}..., "
            "which is not this one's"
        )


@app.command()
def save(
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write the copy.")],
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write the whole log into a file, to be verified elsewhere."""
    this = session(server, token, output, as_json)
    checkpoint = this.client.get("/api/log/checkpoint")
    lines = list(_entries(this, checkpoint["size"]))
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(json.dumps({"checkpoint": checkpoint, "entries": lines}, indent=1) + "\n")
    temporary.replace(file)
    this.output.one({"file": str(file), "entries": checkpoint["size"], "root": checkpoint["root"]})


def _entries(this: Session, size: int) -> Iterator[str]:
    at = 0
    while at < size:
        page = this.client.get("/api/log/entries", start=at, limit=min(PAGE, size - at))["items"]
        if not page or [one["number"] for one in page] != list(range(at, at + len(page))):
            raise Leave(Exit.FAILED, f"the server does not show entry {at} of its {size}")
        at += len(page)
        yield from (str(one["entry"]) for one in page)


@app.command()
def verify(
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A saved copy: offline.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The director's root; else the desk's.")
    ] = None,
    pin: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="The checkpoint seen last, kept up to date; else the desk's."),
    ] = None,
    keys: KeysOption = DEFAULT_DESK,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Read the whole log; hold it to its signed checkpoint, to the one seen last, and to what is published.

    Exit code 3: it forks, it shrank, it is not what is signed, or something published is not in it.
    """
    from skylift.trust.log import Pin, audit, log_keys, verified

    this = session(server, token, output, as_json)
    source = root or keys / "public" / "director.root.json"
    kept = pin or keys / "public" / "log.json"
    answer, lines = _copy(file) if file else _download(this)
    try:
        checkpoint = verified(answer, log_keys(_read(source)))
        before = Pin.read(kept)
        audit((line.encode() for line in lines), checkpoint, before)
    except TrustError as e:
        raise Leave(Exit.FAILED, str(e)) from e
    if file is None:
        _published(this, set(lines))
    if before is None or before.size < checkpoint.size:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"size": checkpoint.size, "root": checkpoint.root}) + "\n")
    seen = before.size if before else 0
    this.output.one(
        {"entries": checkpoint.size, "root": checkpoint.root, "seen_before": seen, **_kinds(lines)}
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise invalid("root", str(path), f"cannot be read ({e.strerror}); is --keys the right desk?") from e


def _download(this: Session) -> tuple[Any, list[str]]:
    answer = this.client.get("/api/log/checkpoint")
    return answer, list(_entries(this, answer["size"]))


def _copy(file: Path) -> tuple[Any, list[str]]:
    try:
        body = json.loads(file.read_text())
        return body["checkpoint"], [str(line) for line in body["entries"]]
    except (ValueError, KeyError, TypeError) as e:
        raise invalid("file", file.name, "is no copy of a log (`skylift trust log save`)") from e


def _published(this: Session, lines: set[str]) -> None:
    """Whether what the image repository serves now is in the log."""
    from hashlib import sha256

    from skylift.trust.log import file_entry

    roles = [role for role in this.client.get("/api/trust")["roles"] if role["repo"] == "image"]
    for role in roles:
        body = this.client.raw(f"/image/{role['version']}.{role['role']}.json")
        digest = sha256(body).hexdigest()
        entry = file_entry("image", role["role"], role["version"], len(body), digest).decode()
        if entry not in lines:
            raise Leave(
                Exit.FAILED, f"image/{role['role']} version {role['version']} is published, not logged"
            )


def _kinds(lines: Iterable[str]) -> dict[str, int]:
    kinds = [json.loads(line).get("entry") for line in lines]
    return {"files": kinds.count("file"), "orders": kinds.count("order")}
