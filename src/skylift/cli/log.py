"""`skylift trust log`: the transparency log, shown, saved, and held to what it said before."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli.context import Session, at_server
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format
from skylift.cli.trust import DEFAULT_DESK, KeysOption
from skylift.core.errors import TrustError, invalid

app = typer.Typer(help="The transparency log: everything ever published and ordered.", no_args_is_help=True)
PAGE = 1000


@at_server(app)
def show(
    this: Session,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many of the latest entries.")] = 20,
) -> None:
    """Its size and root, the latest entries, and what devices saw that is not of this log."""
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


@at_server(app)
def save(
    this: Session,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write the copy.")],
) -> None:
    """Write the whole log into a file, with the files it tells of, to be verified elsewhere."""
    copy = _download(this)
    shown = {name: body.decode("ascii") for name, body in copy.files.items()}
    body = {"checkpoint": copy.checkpoint, "entries": copy.entries, "files": shown}
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(json.dumps(body, indent=1) + "\n")
    temporary.replace(file)
    size, root = copy.checkpoint["size"], copy.checkpoint["root"]
    this.output.one({"file": str(file), "entries": size, "files": len(shown), "root": root})


def _entries(this: Session, size: int) -> Iterator[str]:
    at = 0
    while at < size:
        page = this.client.get("/api/log/entries", start=at, limit=min(PAGE, size - at))["items"]
        if not page or [one["number"] for one in page] != list(range(at, at + len(page))):
            raise Leave(Exit.FAILED, f"the server does not show entry {at} of its {size}")
        at += len(page)
        yield from (str(one["entry"]) for one in page)


@at_server(app)
def verify(
    this: Session,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A saved copy: offline.")
    ] = None,
    roots: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A folder with both roots; else the desk's."),
    ] = None,
    pin: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="The checkpoint seen last, kept up to date; else the desk's."),
    ] = None,
    keys: KeysOption = DEFAULT_DESK,
) -> None:
    """Read the whole log, and every file it tells of; hold them to the roots of this desk, to the signed
    checkpoint, to the one seen last, and to each other: every root, every release, every order.

    Exit code 3: something does not hold, or something published is not in it.
    """
    from skylift.trust import audit
    from skylift.trust.log import Pin

    source = roots or keys / "public"
    kept = pin or keys / "public" / "log.json"
    own = {repo: _read(source / f"{repo}.root.json") for repo in ("image", "director")}
    copy = _copy(file) if file else _download(this)
    before = Pin.read(kept)
    try:
        found = audit.verify(copy, own, before)
    except TrustError as e:
        raise Leave(Exit.FAILED, str(e)) from e
    if file is None:
        _is_newest(this, found.newest)
    seen, checkpoint = before.size if before else 0, found.checkpoint
    if seen < checkpoint.size:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"size": checkpoint.size, "root": checkpoint.root}) + "\n")
    told = {f"{repo}_roots": found.newest[repo, "root"] for repo in own}
    counted = {"files": found.published, "orders": found.orders, **told}
    this.output.one({"entries": checkpoint.size, "root": checkpoint.root, "seen_before": seen, **counted})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise invalid("roots", str(path), f"cannot be read ({e.strerror}); is --keys the right desk?") from e


def _download(this: Session) -> Any:
    """The log as it is now, and every file it tells of."""
    from skylift.trust import audit

    checkpoint = this.client.get("/api/log/checkpoint")
    entries = list(_entries(this, checkpoint["size"]))
    try:
        wanted = audit.wanted(entries)
    except TrustError as e:
        raise Leave(Exit.FAILED, str(e)) from e
    found: dict[str, bytes] = {}
    with this.output.progress("downloading what was published", len(wanted), steps=True) as moved:
        for repo, role, version in wanted:
            at = f"/api/trust/roots/{repo}/{version}" if role == "root" else f"/image/{version}.{role}.json"
            found[audit.name_of(repo, role, version)] = this.client.raw(at)
            moved(1)
    return audit.Copy(checkpoint, entries, found)


def _copy(file: Path) -> Any:
    from skylift.trust import audit

    try:
        body = json.loads(file.read_text())
        found = {str(name): str(text).encode("ascii") for name, text in body["files"].items()}
        return audit.Copy(body["checkpoint"], [str(line) for line in body["entries"]], found)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise invalid("file", file.name, "is no copy of a log (`skylift trust log save`)") from e


def _is_newest(this: Session, newest: dict[tuple[str, str], int]) -> None:
    """Whether what the server says that it serves is what the log has."""
    for role in this.client.get("/api/trust")["roles"]:
        logged = newest.get((role["repo"], role["role"]), 0)
        if logged < role["version"]:
            raise Leave(
                Exit.FAILED,
                f"{role['repo']}/{role['role']} version {role['version']} is published, not logged: "
                f"the log ends with {logged}",
            )
