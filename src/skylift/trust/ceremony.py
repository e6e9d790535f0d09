"""The key ceremony, at a desk, away from the server.

`hold` makes what is missing in a directory of keys and public files: three root, three targets and three
release keys per product, the first roots of both repositories, and the delegations. Run again with another
product it adds that product; nothing that exists is changed, and no private key leaves the directory.
"""

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Root, Targets

from skylift.core.errors import invalid
from skylift.core.ids import check_name
from skylift.trust import files, keyring, keys
from skylift.trust.roles import DIRECTOR, IMAGE, PRODUCT, RULES, TOP_LEVEL


@dataclass(frozen=True, slots=True)
class Ceremony:
    """What the server needs: the public files, by role."""

    image_root: bytes
    director_root: bytes
    targets: bytes


@dataclass(frozen=True, slots=True)
class Desk:
    """A directory: `keys/*.pem` (private), `public/*.json` (what was signed)."""

    path: Path
    passphrase: bytes | None

    def key_path(self, name: str, number: int) -> Path:
        """The key's file: `.json` where the key itself is elsewhere (`keyring`), else `.pem`."""
        path = self.path / "keys" / f"{name}-{number}.json"
        return path if path.exists() else path.with_suffix(".pem")

    def signers(self, name: str, many: int) -> list[Signer]:
        """The first keys of this name; made where they are missing."""
        made = []
        for number in range(1, many + 1):
            path = self.key_path(name, number)
            if not path.exists():
                keys.save(keys.generate(), path, self.passphrase)
            made.append(keyring.load(path, self.passphrase))
        return made

    def fresh(self, name: str) -> Path:
        """A new key of this name, under the next number."""
        number = next(n for n in count(1) if not self.key_path(name, n).exists())
        path = self.key_path(name, number)
        keys.save(keys.generate(), path, self.passphrase)
        return path

    def named(self, name: str, keyids: Collection[str]) -> list[Signer]:
        """The keys of this name here that these ids name; those of people who left are not among them."""
        paths = sorted((self.path / "keys").glob(f"{name}-[0-9]*"))
        fitting = [path for path in paths if keyring.public(path, self.passphrase).keyid in keyids]
        return [keyring.load(path, self.passphrase) for path in fitting]

    def public(self, name: str) -> Path:
        return self.path / "public" / f"{name}.json"

    def keep(self, name: str, body: bytes) -> bytes:
        """Written whole or not at all: a torn root at the desk could not be made again."""
        path = self.public(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".json.new")
        with temporary.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return body


def hold(
    desk: Desk,
    products: Iterable[str],
    online_image: Key,
    online_director: Key,
    now: datetime,
    progress: Callable[[str], None] = lambda said: None,
) -> Ceremony:
    """Make what is missing and return the public files. Raises `Rejected` for an impossible product name,
    and for a desk whose roots name other online keys than the server's."""
    wanted = list(products)
    for product in wanted:
        if check_name("product", product) in TOP_LEVEL:
            raise invalid("product", product, "is the name of a TUF role")
    progress("root keys")
    image_root = _root(desk, IMAGE, online_image, now)
    director_root = _root(desk, DIRECTOR, online_director, now)
    progress("release keys and delegations")
    return Ceremony(image_root, director_root, _targets(desk, wanted, now))


def _root(desk: Desk, repo: str, online: Key, now: datetime) -> bytes:
    name = f"{repo}.root"
    if desk.public(name).exists():
        body = desk.public(name).read_bytes()
        named = files.read(name, body, Root).signed.roles["timestamp"].keyids
        if named != [online.keyid]:
            raise invalid("server", online.keyid, f"the {repo} root of this desk names another online key")
        return body
    holders = desk.signers("root", RULES[repo, "root"].keys)
    offline = desk.signers("targets", RULES[IMAGE, "targets"].keys) if repo == IMAGE else []
    by_role: dict[str, Sequence[Key]] = {
        "root": [signer.public_key for signer in holders],
        "targets": [signer.public_key for signer in offline] or [online],
        "snapshot": [online],
        "timestamp": [online],
    }
    made = files.root(1, by_role, repo, now)
    return desk.keep(name, files.sign(made, holders[: RULES[repo, "root"].threshold]))


def _targets(desk: Desk, wanted: list[str], now: datetime) -> bytes:
    path = desk.public("image.targets")
    version, products = 0, dict[str, Sequence[Key]]()
    if path.exists():
        signed = files.read("targets", path.read_bytes(), Targets).signed
        version = signed.version
        products = product_keys(signed)
        if not set(wanted) - products.keys():
            return path.read_bytes()
    for product in wanted:
        if product not in products:
            signers = desk.signers(f"release-{product}", PRODUCT.keys)
            products[product] = [signer.public_key for signer in signers]
    made = files.delegations(version + 1, products, now)
    root = files.read("root", desk.public("image.root").read_bytes(), Root).signed
    holders = desk.named("targets", root.roles["targets"].keyids)
    return desk.keep("image.targets", files.sign(made, holders[: RULES[IMAGE, "targets"].threshold]))


def product_keys(signed: Targets) -> dict[str, Sequence[Key]]:
    """The release keys of every product these targets delegate to."""
    if signed.delegations is None or signed.delegations.roles is None:
        return {}
    known = signed.delegations.keys
    return {name: [known[keyid] for keyid in role.keyids] for name, role in signed.delegations.roles.items()}


def first_roots(desk: Desk) -> dict[str, bytes]:
    """Repository -> its root, as a factory puts it into a device. Raises `Rejected` for a desk without."""
    found = {}
    for repo in (IMAGE, DIRECTOR):
        source = desk.public(f"{repo}.root")
        if not source.exists():
            raise invalid(
                "keys", str(desk.path), "holds no roots yet; run `skylift trust init`", code="no_roots"
            )
        found[repo] = source.read_bytes()
    return found


def export_linux(desk: Desk, to: Path) -> list[Path]:
    """The two roots, for the factory image of a Linux device."""
    written = []
    for repo, body in first_roots(desk).items():
        to.mkdir(parents=True, exist_ok=True)
        path = to / f"{repo}.root.json"
        path.write_bytes(body)
        written.append(path)
    return written
