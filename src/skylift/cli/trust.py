"""`skylift trust`: init, sign, status, export. Private keys stay in the desk's directory."""

import base64
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli.context import FormatOption, JsonOption, ServerOption, TokenOption, session
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format

app = typer.Typer(help="Keys and roles: the ceremony, signatures, expiries.", no_args_is_help=True)
KeysOption = Annotated[Path, typer.Option("--keys", help="The desk: a directory of keys and public files.")]
DEFAULT_DESK = Path("skylift-keys")


def passphrase(ask: bool = True) -> bytes | None:
    """From the environment, or asked for; None (and said so) where neither is possible."""
    from skylift.trust.keys import PASSPHRASE_ENV

    given = os.environ.get(PASSPHRASE_ENV)
    if given is None and ask:
        given = typer.prompt("passphrase of the keys", hide_input=True, err=True)
    return given.encode() if given else None


@app.command()
def init(
    product: Annotated[list[str] | None, typer.Option("--product", help="A product; repeatable.")] = None,
    keys: KeysOption = DEFAULT_DESK,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """The key ceremony: three root, three targets and three release keys per product, two of three must sign.

    Run again with another --product, it adds that product. Nothing private is sent anywhere.
    """
    from skylift.trust.ceremony import Desk, hold
    from skylift.trust.keys import from_public_dict

    this = session(server, token, output, as_json)
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


@app.command()
def status(
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Every role with the days to its expiry, and what is half signed."""
    this = session(server, token, output, as_json)
    found = this.client.get("/api/trust")
    if this.output.form is Format.JSON:
        this.output.one(found)
        return
    this.output.many(found["roles"], ("repo", "role", "version", "days_left", "renew"))
    for waiting in found["pending"]:
        this.output.say(
            f"{waiting['role']} version {waiting['version']}: "
            f"{waiting['signatures']} of {waiting['threshold']} signatures"
        )


@app.command()
def sign(
    role: Annotated[str, typer.Argument(help="The role that waits: a product's name.")],
    key: Annotated[list[Path], typer.Option("--key", help="A private key file; repeatable.")],
    keys: KeysOption = DEFAULT_DESK,
    server: ServerOption = None,
    token: TokenOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Add signatures to a half-signed role, after checking and showing what it would say."""
    this = session(server, token, output, as_json)
    sign_role(this, role, key, keys)


def sign_role(this: Any, role: str, key: list[Path], desk: Path) -> None:
    """Check, show, sign, hand in."""
    from skylift.trust.desk import Proposal
    from skylift.trust.keys import load

    proposal = Proposal.read(
        role,
        this.client.raw(f"/api/trust/pending/{role}"),
        _published(this, role),
        (desk / "public" / "image.root.json"),
        (desk / "public" / "image.targets.json"),
        datetime.now(UTC),
    )
    for line in proposal.lines():
        this.output.say(line)
    secret = passphrase(ask=any(b"ENCRYPTED" in path.read_bytes() for path in key))
    answer: Any = None
    for path in key:
        body = proposal.sign(load(path, secret))
        answer = this.client.post(f"/api/trust/pending/{role}/signatures", body)
        this.output.say(f"{path.name}: {answer['signatures']} of {answer['threshold']} signatures")
    if answer is None:
        raise Leave(Exit.USAGE, "--key is needed at least once")
    this.output.one(answer)


def _published(this: Any, role: str) -> bytes | None:
    """The role's published file, if there is one."""
    status = this.client.get("/api/trust")
    for known in status["roles"]:
        if (known["repo"], known["role"]) == ("image", role):
            found: bytes = this.client.raw(f"/image/{known['version']}.{role}.json")
            return found
    return None


@app.command()
def export(
    linux: Annotated[Path, typer.Option("--linux", help="A directory for the two first roots.")],
    keys: KeysOption = DEFAULT_DESK,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Write the first roots for the factory image of a device."""
    from skylift.cli.output import Output
    from skylift.trust.ceremony import Desk, export_linux

    written = export_linux(Desk(keys, None), linux)
    shown = Output(Format.JSON if as_json else output)
    shown.one({"written": [str(path) for path in written]})
