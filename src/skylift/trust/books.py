"""A desk's books: the newest roots and delegations that it verified itself, and what may come after them.

The signer's trust does not come from the server: `catch_up` follows each chain of roots from the desk's own
copy, as a device does. `rotated` and `renewed` write the next files, unsigned; what they say is shown by
`desk.Review` before a key is touched.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from skylift.core.errors import TrustError, invalid
from skylift.core.lifecycle import Reason
from skylift.trust import files
from skylift.trust.ceremony import Desk, product_keys
from skylift.trust.roles import DIRECTOR, IMAGE, IMAGE_ROOT, IMAGE_TARGETS, ROOTS

Get = Callable[[str, int], bytes | None]  # (image:root | director:root | image:targets, version) -> the file
MOST = 256  # new files of one chain in one go


@dataclass(frozen=True)
class Books:
    """What this desk knows."""

    image_root: Root
    director_root: Root
    targets: Targets

    @classmethod
    def open(cls, desk: Desk) -> "Books":
        """Raises `Rejected` for a desk without roots."""
        roots = {repo: _own(desk, f"{repo}.root", Root) for repo in (IMAGE, DIRECTOR)}
        targets = _own(desk, "image.targets", Targets)
        if not files.verifies(roots[IMAGE].signed, "targets", targets):
            raise TrustError(
                Reason.SIGNATURE_INVALID, "this desk's delegations are not signed by its targets keys"
            )
        return cls(roots[IMAGE].signed, roots[DIRECTOR].signed, targets.signed)

    def root(self, repo: str) -> Root:
        return self.image_root if repo == IMAGE else self.director_root

    @property
    def products(self) -> dict[str, Sequence[Key]]:
        """The release keys of every product."""
        return product_keys(self.targets)


def _own(desk: Desk, name: str, kind: type[files.S]) -> "Metadata[files.S]":
    path = desk.public(name)
    if not path.exists():
        raise invalid("keys", str(desk.path), "holds no roots; is --keys the right desk?", code="no_roots")
    return files.read(name, path.read_bytes(), kind)


def catch_up(desk: Desk, get: Get) -> list[str]:
    """Follow the server to its newest files, verifying each by what the desk had; their names. Raises
    `TrustError` where the server shows others."""
    learned = []
    for role, repo in ROOTS.items():
        known = _own(desk, f"{repo}.root", Root).signed
        for _ in range(MOST):
            body = get(role, known.version + 1)
            if body is None:
                break
            offered = files.read(role, body, Root)
            check_next_root(repo, known, offered)
            if not all(files.verifies(judge, "root", offered) for judge in (known, offered.signed)):
                raise _foreign(
                    f"the {repo} root of version {offered.signed.version} is not signed by its holders"
                )
            desk.keep(f"{repo}.root", body)
            known = offered.signed
            learned.append(f"{role} version {known.version}")
    root, targets = _own(desk, f"{IMAGE}.root", Root).signed, _own(desk, "image.targets", Targets)
    body = get(IMAGE_TARGETS, 0)
    if body is not None:
        offered_targets = files.read(IMAGE_TARGETS, body, Targets)
        if offered_targets.signed.version < targets.signed.version:
            raise _foreign("the server's delegations are older than this desk's")
        if not files.verifies(root, "targets", offered_targets):
            raise _foreign("the server's delegations are not signed by their keys")
        if offered_targets.signed.version > targets.signed.version:
            desk.keep("image.targets", body)
            learned.append(f"{IMAGE_TARGETS} version {offered_targets.signed.version}")
    return learned


def check_next_root(repo: str, known: Root, offered: "Metadata[Root]") -> None:
    """Raises `TrustError` unless this is the root that comes after, whoever signed it."""
    if offered.signed.unrecognized_fields.get("repository") != repo:
        raise _foreign(f"it is no root of the {repo} repository")
    if offered.signed.version != known.version + 1:
        raise _foreign(f"version {offered.signed.version} of the {repo} root; {known.version + 1} comes next")


def _foreign(sentence: str) -> TrustError:
    return TrustError(Reason.SIGNATURE_INVALID, sentence)


# --- what comes next ----------------------------------------------------------------------------------


def rotated(books: Books, role: str, remove: Key | None, add: Key | None, now: datetime) -> dict[str, bytes]:
    """Role -> the next file, unsigned, in which a key of `root`, `targets` or a product was replaced, removed
    or added. Who holds a root key holds it for both repositories."""
    if role == "root":
        found = {}
        for name, repo in ROOTS.items():
            known = books.root(repo)
            found[name] = _root(known, repo, {"root": _changed(known, "root", remove, add)}, now)
        return found
    if role == "targets":
        held = {"targets": _changed(books.image_root, "targets", remove, add)}
        return {
            IMAGE_ROOT: _root(books.image_root, IMAGE, held, now),
            IMAGE_TARGETS: _targets(books, books.products, now),
        }
    if role not in books.products:
        raise invalid("role", role, f"root, targets or a product: {', '.join(sorted(books.products))}")
    products = dict(books.products)
    products[role] = _swap(products[role], remove, add, role)
    return {IMAGE_TARGETS: _targets(books, products, now)}


def with_online(books: Books, online: Mapping[str, Key], now: datetime) -> dict[str, bytes]:
    """Both next roots, with other online keys (repository -> key)."""
    held = {repo: {role: [online[repo]] for role in ("snapshot", "timestamp")} for repo in (IMAGE, DIRECTOR)}
    held[DIRECTOR]["targets"] = [online[DIRECTOR]]
    return {
        name: _root(books.root(repo), repo, held[repo], now)
        for name, repo in ROOTS.items()
        if any(books.root(repo).roles[role].keyids != [keys[0].keyid] for role, keys in held[repo].items())
    }


def renewed(books: Books, role: str, now: datetime) -> dict[str, bytes]:
    """The next roots, or the next delegations, as they are but for their dates."""
    if role == "root":
        return {name: _root(books.root(repo), repo, {}, now) for name, repo in ROOTS.items()}
    return {IMAGE_TARGETS: _targets(books, books.products, now)}


def _root(known: Root, repo: str, held: Mapping[str, Sequence[Key]], now: datetime) -> bytes:
    by_role = {role: [known.keys[k] for k in found.keyids] for role, found in known.roles.items()}
    return files.sign(files.root(known.version + 1, {**by_role, **held}, repo, now), [])


def _targets(books: Books, products: Mapping[str, Sequence[Key]], now: datetime) -> bytes:
    return files.sign(files.delegations(books.targets.version + 1, products, now), [])


def _changed(root: Root, role: str, remove: Key | None, add: Key | None) -> list[Key]:
    return _swap([root.keys[keyid] for keyid in root.roles[role].keyids], remove, add, role)


def _swap(known: Sequence[Key], remove: Key | None, add: Key | None, role: str) -> list[Key]:
    kept = [key for key in known if remove is None or key.keyid != remove.keyid]
    if remove is not None and len(kept) == len(known):
        raise invalid("remove", remove.keyid[:16], f"is not a key of {role}")
    if add is not None and any(key.keyid == add.keyid for key in kept):
        raise invalid("add", add.keyid[:16], f"is a key of {role} already")
    return kept if add is None else [*kept, add]


def find_key(books: Books, role: str, beginning: str) -> Key:
    """The key of this role whose id begins so. Raises `Rejected` where there is none, or more than one."""
    if role in ("root", "targets"):
        known = [books.image_root.keys[keyid] for keyid in books.image_root.roles[role].keyids]
    else:
        known = list(books.products.get(role, ()))
    found = [key for key in known if beginning and key.keyid.startswith(beginning)]
    if len(found) != 1:
        ids = ", ".join(key.keyid[:8] for key in known)
        raise invalid("remove", beginning, f"begins the id of one key of {role}: {ids}")
    return found[0]
