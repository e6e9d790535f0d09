"""`skylift trust`: init, sign, status, export. Private keys stay where they are.

What comes later in a fleet's life (rotate, revoke, renew) is in `rotate`.
"""

import base64
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli import rounds
from skylift.cli.context import FormatOption, JsonOption, Session, YesOption, at_server
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format, Output

app = typer.Typer(help="Keys and roles: the ceremony, signatures, expiries.", no_args_is_help=True)
KeysOption = Annotated[Path, typer.Option("--keys", help="The desk: a directory of keys and public files.")]
DEFAULT_DESK = Path("skylift-keys")
WORDS = {"good": "good", "renew": "about to expire", "expired": "EXPIRED"}


def passphrase(ask: bool = True) -> bytes | None:
    """From the environment, or asked for; None, and said so, where the environment has an empty one."""
    from skylift.trust.keys import PASSPHRASE_ENV

    given = os.environ.get(PASSPHRASE_ENV)
    if given is None and ask:
        given = typer.prompt("passphrase of the keys", hide_input=True, err=True)
    if not given and ask:
        typer.echo(f"no passphrase ({PASSPHRASE_ENV} is empty): new keys are NOT encrypted", err=True)
    return given.encode() if given else None


@at_server(app)
def init(
    this: Session,
    product: Annotated[list[str] | None, typer.Option("--product", help="A product; repeatable.")] = None,
    keys: KeysOption = DEFAULT_DESK,
) -> None:
    """The key ceremony: three root, three targets and three release keys per product, two of three must sign.

    Run again with another --product, it adds that product. Nothing private is sent anywhere.
    """
    from skylift.trust.ceremony import Desk, hold
    from skylift.trust.keys import from_public_dict

    online = this.client.get("/api/trust/online-keys")
    image, director = (from_public_dict(name, online[name]) for name in ("image", "director"))
    this.output.say(f"the server's online keys: image {image.keyid[:16]}, director {director.keyid[:16]}")
    made = hold(Desk(keys, passphrase()), product or [], image, director, datetime.now(UTC), this.output.say)
    body = {
        name: base64.b64encode(getattr(made, name)).decode()
        for name in ("image_root", "director_root", "targets")
    }
    this.output.one(this.client.post("/api/trust/ceremony", body), _roles(this, body))


def _roles(this: Any, _: Any) -> Any:
    status = this.client.get("/api/trust")
    for role in status["roles"]:
        yield f"{role['repo']}/{role['role']}", f"version {role['version']}, {role['days_left']} days left"


@at_server(app)
def status(this: Session) -> None:
    """Every role with the days to its expiry, and what is half signed."""
    found = this.client.get("/api/trust")
    if this.output.form is Format.JSON:
        this.output.one(found)
        return
    rows = [{**role, "state": WORDS[role["state"]]} for role in found["roles"]]
    this.output.many(rows, ("repo", "role", "version", "days_left", "state", "by"))
    for waiting in found["pending"]:
        signed, needed = waiting["signatures"], waiting["threshold"]
        this.output.say(
            f"{waiting['role']} version {waiting['version']}: {signed} of {needed} signatures; "
            f"sign with `skylift trust sign {waiting['role']}`"
        )
    for role in found["roles"]:
        if role["state"] != "good" and role["by"] == "people":
            days, again = role["days_left"], f"renew it with `skylift trust renew {role['role']}`"
            this.output.say(f"{role['repo']} {role['role']}: {days} days left; {again}")


@at_server(app)
def sign(
    this: Session,
    role: Annotated[
        str | None,
        typer.Argument(help="What waits: a product, image:root, director:root, image:targets. Without: all."),
    ] = None,
    key: Annotated[list[Path] | None, typer.Option("--key", help="A key's file; repeatable.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Sign in this file of `trust rotate --out` instead.")
    ] = None,
    withdraws: Annotated[
        list[str] | None, typer.Option("--withdraws", help="A version that is meant to be withdrawn.")
    ] = None,
    keys: KeysOption = DEFAULT_DESK,
    yes: YesOption = False,
) -> None:
    """Add signatures to what is half signed, after checking and showing what they would say."""
    if not key:
        raise Leave(Exit.USAGE, "--key is needed at least once")
    if file is not None:
        rounds.sign_file(this.output, file, signers(key), keys, yes)
        return
    if role is not None:
        this.output.one(rounds.sign_role(this, role, signers(key), keys, yes, withdraws or ()))
        return
    held = signers(key)
    waiting = [each["role"] for each in this.client.get("/api/trust")["pending"]]
    for each in waiting:
        rounds.sign_role(this, each, held, keys, yes, withdraws or (), others=True)
    this.output.one({"roles": waiting, "pending": this.client.get("/api/trust")["pending"]}, ())


def signers(paths: list[Path]) -> dict[str, Any]:
    """Name -> what signs, of these files; the passphrase is asked for once."""
    from skylift.trust.keyring import load

    secret = passphrase(ask=any(path.exists() and b"ENCRYPTED" in path.read_bytes() for path in paths))
    return {path.name: load(path, secret) for path in paths}


@app.command()
def export(
    linux: Annotated[Path | None, typer.Option("--linux", help="A directory for the two roots.")] = None,
    esp_idf: Annotated[Path | None, typer.Option("--esp-idf", help="A directory for a C header.")] = None,
    micropython: Annotated[
        Path | None, typer.Option("--micropython", help="A directory for a Python module.")
    ] = None,
    keys: KeysOption = DEFAULT_DESK,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write the newest roots of this desk for the factory image of a device."""
    from skylift.trust.ceremony import Desk
    from skylift.trust.pinned import export as write

    wanted = {"linux": linux, "esp-idf": esp_idf, "micropython": micropython}
    if not any(wanted.values()):
        raise Leave(Exit.USAGE, f"one of {', '.join('--' + form for form in wanted)} is needed")
    written = [path for form, to in wanted.items() if to for path in write(Desk(keys, None), form, to)]
    Output(Format.JSON if as_json else output).one({"written": [str(path) for path in written]})
