"""`skylift trust rotate | renew | revoke | publish | adopt`: what comes after the ceremony.

Each makes the next public files and proposes them: at the server, or in a file to pass on (`--out`). Nothing
changes for any device until enough holders have signed (`skylift trust sign`).
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli import rounds
from skylift.cli.context import FormatOption, JsonOption, Session, YesOption, at_server, must_confirm
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format, Output
from skylift.cli.trust import DEFAULT_DESK, KeysOption, passphrase
from skylift.cli.trust import app as app  # `skylift trust`, with the commands of this module

OutOption = Annotated[
    Path | None, typer.Option("--out", help="Write a file to pass on, instead of proposing at the server.")
]
RoleArgument = Annotated[str, typer.Argument(help="root, targets, or a product's name.")]


@at_server(app)
def rotate(
    this: Session,
    role: Annotated[str, typer.Argument(help="root, targets, a product's name, or online.")],
    remove: Annotated[str, typer.Option("--remove", help="The beginning of the old key's id.")] = "",
    add: Annotated[
        Path | None, typer.Option("--add", help="The new key's file; without, one is made at this desk.")
    ] = None,
    out: OutOption = None,
    keys: KeysOption = DEFAULT_DESK,
) -> None:
    """Replace a key: root holders' (both repositories), the targets role's, a product's release key; or the
    server's online keys by those it has now (`online`)."""
    rounds.catch_up(this, keys)
    _replace(this, role, remove, add, out, keys)


def _replace(this: Session, role: str, remove: str, add: Path | None, out: Path | None, desk: Path) -> None:
    from skylift.trust import books, keyring
    from skylift.trust.ceremony import Desk
    from skylift.trust.keys import from_public_dict

    own, now = books.Books.open(Desk(desk, None)), datetime.now(UTC)
    if role == "online":
        told = this.client.get("/api/trust/online-keys")
        online = {repo: from_public_dict(repo, told[repo]) for repo in ("image", "director")}
        proposals = books.with_online(own, online, now)
        if not proposals:
            raise Leave(Exit.ERROR, "the roots name these online keys already")
        return _propose(this, proposals, (), out)
    if not remove and add is None:
        raise Leave(Exit.USAGE, "--remove, --add or both are needed: which key goes, which comes")
    gone = books.find_key(own, role, remove) if remove else None
    if add is None:
        name = role if role in ("root", "targets") else f"release-{role}"
        add = Desk(desk, passphrase()).fresh(name)
        this.output.say(f"the new key is {add}")
    secret = passphrase() if add.suffix == ".pem" and b"ENCRYPTED" in add.read_bytes() else None
    proposals = books.rotated(own, role, gone, keyring.public(add, secret), now)
    products = [role] if role not in ("root", "targets") else []
    return _propose(this, proposals, products, out)


@at_server(app)
def renew(this: Session, role: RoleArgument, out: OutOption = None, keys: KeysOption = DEFAULT_DESK) -> None:
    """Another term for both roots, for the delegations (`targets`) or for a product's role."""
    from skylift.trust import books
    from skylift.trust.ceremony import Desk

    rounds.catch_up(this, keys)
    if role not in ("root", "targets"):
        _propose(this, {}, (role,), out, needed=True)
        return
    _propose(this, books.renewed(books.Books.open(Desk(keys, None)), role, datetime.now(UTC)), (), out)


@at_server(app)
def revoke(
    this: Session,
    what: Annotated[str, typer.Argument(help="PRODUCT/VERSION, or the beginning of a stolen key's id.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; people and devices' operators read it.")] = "",
    of: Annotated[str, typer.Option("--of", help="Whose key: root, targets, or a product's name.")] = "",
    add: Annotated[Path | None, typer.Option("--add", help="The key that comes instead.")] = None,
    out: OutOption = None,
    keys: KeysOption = DEFAULT_DESK,
    yes: YesOption = False,
) -> None:
    """Withdraw a release: its deployments end now, devices refuse it when its role is signed without it. Or
    take a stolen key out of its role."""
    from skylift.cli.release import release_id

    rounds.catch_up(this, keys)
    if of:
        _replace(this, of, what, add, out, keys)
        return
    if "/" not in what or not reason:
        raise Leave(Exit.USAGE, "PRODUCT/VERSION and --reason are needed, or a key's id and --of")
    must_confirm(f"Withdraw {what}? Its deployments are aborted at once.", yes)
    found = this.client.post(f"/api/releases/{release_id(this, what)}:withdraw", {"reason": reason})
    product, _, version = what.partition("/")
    if found["aborted"]:
        this.output.say(f"aborted: {', '.join(found['aborted'])}")
    this.output.say(f"now its release keys: `skylift trust sign {product} --withdraws {version} --key ...`")
    this.output.one({"release": found["id"], "status": found["status"], "aborted": found["aborted"]})


def _propose(
    this: Session,
    proposals: dict[str, bytes],
    products: Any,
    out: Path | None,
    needed: bool = False,
) -> None:
    """The files, and the products' roles once more, to be signed by the keys that come."""
    known = {}
    for product in products:
        body = rounds.published(this, product)
        if body is not None or needed:
            this.client.post(f"/api/trust/pending/{product}:renew")
            proposals = {**proposals, product: rounds.raw_pending(this, product)}
            known[product] = body or b""
    if out is not None:
        told = {product: rounds.notes(this, product) for product in known}
        rounds.write(out, proposals, {role: body for role, body in known.items() if body}, told)
        this.output.one({"written": str(out), "roles": list(proposals)})
        return
    rounds.hand_in(this, proposals)
    for role in proposals:
        this.output.say(f"{role} waits for signatures: `skylift trust sign {role} --key ...`")
    this.output.one({"proposed": list(proposals)})


@at_server(app)
def publish(
    this: Session,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file of `--out`, signed.")],
    keys: KeysOption = DEFAULT_DESK,
) -> None:
    """Hand in a file that went from desk to desk; what has its signatures is published."""
    proposals, *_ = rounds.opened(file)
    rounds.hand_in(this, proposals)
    rounds.catch_up(this, keys)
    waiting = [each["role"] for each in this.client.get("/api/trust")["pending"]]
    this.output.one({"published": [role for role in proposals if role not in waiting], "waiting": waiting})


@app.command()
def adopt(
    name: Annotated[str, typer.Argument(help="Such as root-1, targets-2, release-sensor-3.")],
    uri: Annotated[str, typer.Argument(help="hsm:2?label=..., awskms:..., gcpkms:..., azurekms:...")],
    public: Annotated[Path | None, typer.Option("--public", help="Its public part, a PEM file.")] = None,
    keys: KeysOption = DEFAULT_DESK,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Use a key of an HSM or a key service as this desk's NAME, before the ceremony or to rotate it in."""
    from skylift.trust import keyring

    path = keys / "keys" / f"{name}.json"
    found = keyring.adopt(uri, public.read_bytes() if public else None, path)
    Output(Format.JSON if as_json else output).one({"key": str(path), "keyid": found.keyid})
