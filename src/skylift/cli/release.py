"""`skylift release`: create, upload, delete, sign, verify, list, show."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from skylift.cli.client import sha256_of
from skylift.cli.context import Session, YesOption, at_server, must_confirm
from skylift.cli.exits import Exit, Leave
from skylift.cli.output import Format
from skylift.cli.rounds import sign_role
from skylift.cli.trust import DEFAULT_DESK, KeysOption, signers
from skylift.core.errors import invalid

app = typer.Typer(help="Releases: product, version, image; what gets signed.", no_args_is_help=True)
LONGEST_QUERY = 4000  # bytes of notes: servers and proxies take heads of eight thousand
OtherChip = Annotated[
    bool, typer.Option("--other-chip", help="The hardware did change: it is for another chip than before.")
]
DeviceType = Annotated[
    str | None,
    typer.Option(help="What it is for, such as sensor-v2; else the type whose images are for its chip."),
]
Release = Annotated[str, typer.Argument(help="A release's id, rel_..., or PRODUCT/VERSION.")]


def release_id(this: Session, asked: str) -> str:
    """The id of a release that was named by id, or by product and version."""
    product, slash, version = asked.partition("/")
    if not slash:
        return asked
    cursor = None
    while True:
        page = this.client.get("/api/releases", product=product, limit=500, cursor=cursor)
        for found in page["items"]:
            if found["version"] == version:
                return str(found["id"])
        cursor = page["next"]
        if cursor is None:
            raise Leave(Exit.ERROR, f"release is {asked!r}: {product} has no version {version!r}")


@at_server(app)
def create(
    this: Session,
    image: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="The image, or a configuration.")
    ],
    product: Annotated[str, typer.Option()],
    device_type: DeviceType = None,
    version: Annotated[str | None, typer.Option(help="Needed where the image does not say it.")] = None,
    kind: Annotated[str, typer.Option(help="image or config")] = "image",
    notes: Annotated[str, typer.Option(help="For people.")] = "",
    security_version: Annotated[
        int | None, typer.Option(help="Raised when a hole is closed; as the image says, else 0.")
    ] = None,
    sbom: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="What it is made of: CycloneDX JSON; signed with it."),
    ] = None,
    draft: Annotated[bool, typer.Option("--draft", help="More artifacts will follow (upload).")] = False,
    other_chip: OtherChip = False,
) -> None:
    """Hash and upload an image as a new release, ready to be signed. Refused, it leaves nothing behind.

    skylift release create app.img --product sensor --version 2.4.0 --device-type sensor-v2
    """
    from skylift.firmware.image import inspect

    version = version or (inspect(image).get("version") if kind == "image" else None)
    if not version:
        raise invalid("version", "", "given by --version, for the image does not say it")
    about = {"product": product, "version": version, "kind": kind, "notes": notes or None}
    about["security_version"] = security_version
    ready = not draft and sbom is None
    if len(quote(notes)) <= LONGEST_QUERY:
        release = _upload(this, image, device_type, other_chip, ready, **about)["release"]
    else:
        given = {name: value for name, value in about.items() if value is not None}
        release = this.client.post("/api/releases", given)["id"]
        with _or_forgotten(this, release):
            _upload(this, image, device_type, other_chip, ready, release=release)
    if sbom is not None:
        with _or_forgotten(this, release):
            _attach(this, release, sbom)
            if not draft:
                this.client.post(f"/api/releases/{release}:seal")
    _show(this, release)


def _upload(
    this: Session, image: Path, device_type: str | None, other_chip: bool, seal: bool, **into: Any
) -> Any:
    size = image.stat().st_size
    with this.output.progress(f"hashing {image.name}", size) as moved:
        digest = sha256_of(image, moved)
    with this.output.progress(f"uploading {image.name}", size) as moved:
        return this.client.upload(
            "/api/artifacts",
            image,
            moved,
            **into,
            device_type=device_type,
            sha256=digest,
            other_chip=str(other_chip).lower(),
            seal=str(seal).lower(),
        )


def _attach(this: Session, release: str, sbom: Path) -> None:
    with this.output.progress(f"uploading {sbom.name}", sbom.stat().st_size) as moved:
        this.client.upload(f"/api/releases/{release}/sbom", sbom, moved)


@contextmanager
def _or_forgotten(this: Session, release: str) -> Iterator[None]:
    """The draft of a command that failed goes with it."""
    try:
        yield
    except BaseException:
        try:
            this.client.delete(f"/api/releases/{release}")
        except Leave as e:
            this.output.say(f"the draft {release} stays: {e}")
        raise


@at_server(app)
def upload(
    this: Session,
    release: Release,
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    device_type: DeviceType = None,
    seal: Annotated[bool, typer.Option("--seal", help="It was the last one: ready to be signed.")] = False,
    other_chip: OtherChip = False,
) -> None:
    """One more image of a draft release, for another device type."""
    release = release_id(this, release)
    _upload(this, image, device_type, other_chip, seal, release=release)
    _show(this, release)


@at_server(app)
def delete(this: Session, release: Release, yes: YesOption = False) -> None:
    """Forget a draft: its version is free again. A release that was sealed is withdrawn (`trust revoke`)."""
    must_confirm(f"delete {release}?", yes)
    release = release_id(this, release)
    this.client.delete(f"/api/releases/{release}")
    this.output.one({"deleted": release})


@at_server(app)
def sign(
    this: Session,
    release: Release,
    key: Annotated[list[Path], typer.Option("--key", help="A release key's file; repeatable.")],
    keys: KeysOption = DEFAULT_DESK,
    yes: YesOption = False,
) -> None:
    """Add offline signatures; at two of three the release is published. Keys are never sent."""
    release = release_id(this, release)
    found = this.client.get(f"/api/releases/{release}")
    if found["status"] == "published":
        this.output.say(f"{release} is published already")
        _show(this, release)
        return
    if found["status"] == "draft":
        raise Leave(Exit.ERROR, f"{release} is a draft: upload its images and seal it first")
    this.output.one(sign_role(this, found["product"], signers(key), keys, yes))


@at_server(app)
def verify(
    this: Session,
    release: Release,
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    keys: KeysOption = DEFAULT_DESK,
) -> None:
    """Is this file what the release's keys signed? Checked with this desk's own roots."""
    from skylift.trust.desk import vouched

    release = release_id(this, release)
    found = this.client.get(f"/api/releases/{release}")
    role = found["product"]
    status = this.client.get("/api/trust")
    known = {r["role"]: r["version"] for r in status["roles"] if r["repo"] == "image"}
    if role not in known:
        raise Leave(Exit.ERROR, f"nothing of {role} is published yet")
    public = keys / "public"
    with this.output.progress(f"downloading what {role} has published", None) as moved:
        body = this.client.raw(f"/image/{known[role]}.{role}.json", moved)
    with this.output.progress(f"hashing {image.name}", image.stat().st_size) as moved:
        digest = sha256_of(image, moved)
    roots = public / "image.root.json", public / "image.targets.json"
    path = vouched(role, body, digest, *roots, under=f"{role}/{found['version']}/")
    if path is None:
        said = (
            f"{image.name} ({digest[:16]}...) is not what {role}'s release keys signed as {found['version']}"
        )
        raise Leave(Exit.FAILED, said)
    this.output.one({"release": release, "file": image.name, "sha256": digest, "signed_as": path})


@at_server(app)
def sbom(
    this: Session,
    release: Release,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="Where to write it.")],
) -> None:
    """Download a release's bill of materials."""
    release = release_id(this, release)
    known = this.client.get(f"/api/releases/{release}")["sbom"]
    body = this.client.raw(f"/api/releases/{release}/sbom")
    if known and hashlib.sha256(body).hexdigest() != known["sha256"]:
        raise Leave(Exit.FAILED, f"what the server sent is not the bill of {release}")
    file.write_bytes(body)
    this.output.one({"release": release, "file": str(file), **known})


@at_server(app, "list")
def list_(
    this: Session,
    product: Annotated[str | None, typer.Option(help="Only this product's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
) -> None:
    """The latest releases."""
    found = this.client.get("/api/releases", limit=limit, product=product)
    this.output.many(found["items"], ("id", "product", "version", "kind", "status", "created_at"))


@at_server(app)
def show(this: Session, release: Release) -> None:
    """One release: images, signatures gathered, deltas; how devices get it now, and how they did."""
    _show(this, release_id(this, release))


def _show(this: Session, release: str) -> None:
    found = this.client.get(f"/api/releases/{release}")
    if found["kind"] == "image" and found["status"] == "published":
        found["ways"] = this.client.get(f"/api/releases/{release}/ways")
    if this.output.form is Format.JSON:
        this.output.one(found)
        return
    this.output.one(found, _lines(found))


def _lines(found: dict[str, Any]) -> Any:
    for name in ("id", "product", "version", "kind", "status", "security_version", "notes"):
        if found[name] not in ("", None):
            yield name, found[name]
    if signing := found.get("signing"):
        yield "signatures", f"{signing['signatures']} of {signing['threshold']}"
    if sbom := found.get("sbom"):
        about = f"CycloneDX {sbom['spec_version']}, sha256 {sbom['sha256'][:16]}..."
        yield "sbom", f"{sbom['components']} components, {about}"
    for artifact in found["artifacts"]:
        base = f" from {artifact['base_version']}" if artifact["base_version"] else ""
        yield artifact["kind"], f"{artifact['device_type']}{base}, {artifact['size']} bytes"
    yield from _ways(found.get("ways"))


def _ways(found: dict[str, Any] | None) -> Any:
    """How its bytes travel: what is not made and why, what devices would be offered, what they took."""
    if found is None:
        return
    for piece in found["made"]:
        if piece["state"] != "made":
            of = f"from {piece['from']}" if piece["from"] else f"packed by {piece['kind']}"
            why = f": {piece['words']}" if piece["words"] else ""
            yield piece["state"], f"{piece['device_type']} {of}, for {piece['devices']} devices{why}"
    for row in found["now"]:
        yield "now", f"{row['devices']} {row['device_type']} on {row['runs']}: {row['words']}"
    for way, n in found["taken"].items():
        yield "taken", f"{way} {n}"
    for way, reasons in found["passed"].items():
        yield "passed over", f"{way} " + ", ".join(f"{reason} {n}" for reason, n in reasons.items())
