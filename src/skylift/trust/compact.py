"""What a microcontroller verifies: the order, and the product's role that two of three release keys signed.

The same files as `verify` reads, without snapshots and timestamps: the check's `nonce`, which the director
signs into the order, shows that it is fresh. Nothing but sha256 and integers is used (`plain`, `p256`), no
python-tuf, no library for curves; it is what conformance/trust is made for.

The rules, in this order, each with bad vectors of its own:
    order   at most 4 KB; the form; one signature of the pinned director root's targets keys; type; version
            not below the stored one; this device; the nonce that was sent; not expired, if there is a clock;
            no delegations, at most one image. No image: up to date
    role    at most 16 KB; the form; its threshold of this product's release keys; type, version, expiry
    match   path below the product; length, digests and description equal in both; hardware; security floor
    log     (optional) the order shows size and root of the transparency log, which must go on from the ones
            that are pinned, and have the order, the role and both roots: proofs of at most 16 KB
Versions are stored when all of it holds, and what is refused teaches nothing. New roots and delegations
(16 KB each) are fetched only when the check's answer says that theirs are higher: a root comes after its
predecessor, by one, and both sets of holders sign it; it says whose it is, for the same people hold both
repositories' roots. Delegations that the newest image root does not vouch for any more do not count until
newer ones have come.
"""

import hashlib
from binascii import a2b_base64, hexlify, unhexlify

from skylift.core.merkleproof import extends, includes, leaf_hash
from skylift.trust.p256 import on_curve, verifies
from skylift.trust.plain import Refused, expect, number, table, text, value

try:  # noqa: SIM105 - contextlib is not there either
    from typing import Any
except ImportError:  # MicroPython has none, and evaluates no annotations
    pass

ORDER_MAX = 4 << 10  # bytes
ROLE_MAX = 16 << 10
ROOT_MAX = 16 << 10  # of delegations too
LOG_MAX = 16 << 10  # of the log's proofs
STEPS = 63  # of one proof
ROOTS_MAX = 256  # rotations followed at once
SIGNATURES = 64
KEYS = 64  # of one role

SIGNATURE, EXPIRED, ROLLBACK = "signature_invalid", "metadata_expired", "metadata_rollback"
HARDWARE, FLOOR, HASH = "wrong_hardware", "below_security_floor", "hash_mismatch"


class Image:
    """What to install: `sha256` and `length` are the whole image's."""

    def __init__(self, path: str, vouched: dict[str, Any], told: dict[str, Any]) -> None:
        custom = vouched["custom"]
        self.path = path
        self.length = number(vouched.get("length"))
        self.sha256 = text(vouched["hashes"].get("sha256"))
        self.version = text(custom.get("version"))
        self.security_version = number(custom.get("security_version"))
        self.kind = text(custom.get("kind"))
        self.deployment = text(told.get("deployment"))
        self.attempt = number(told.get("attempt"))
        self.mandatory = told.get("mandatory") is True


class Holders:
    """Who may sign a role, and how many must: key id -> the point of the key."""

    def __init__(self, keys: dict[str, tuple[int, int]], threshold: int) -> None:
        self.keys = keys
        self.threshold = threshold

    def outlives(self, old: "Holders") -> bool:
        """Whether what the old holders signed may still count here: versions must be kept then. Where it
        cannot, they are forgotten: a stolen key may have driven them up."""
        return len([key for key in old.keys.values() if key in self.keys.values()]) >= self.threshold


class Root:
    """What a device keeps of a root. `entry` is how the log tells of it."""

    def __init__(self, file: "_File", repository: str) -> None:
        signed = file.signed
        _typed(signed, "root")
        if signed.get("repository") != repository:
            raise Refused(SIGNATURE, "root: of this repository")
        self.repository = repository
        self.version = _version(signed)
        self.expires = _seconds(signed.get("expires"))
        keys, roles = table(signed.get("keys")), table(signed.get("roles"))
        self.root = _holders(keys, roles.get("root"))
        self.targets = _holders(keys, roles.get("targets"))
        self.entry = file.entry(repository, "root", self.version)


class Device:
    """One device's trust. What it is made with comes from its own flash and is believed: the two newest roots
    it verified (the factory's at first), the newest delegations, and the versions that were stored. Its
    attributes are what to store again; a call that raises `Refused` has changed none of them."""

    def __init__(
        self,
        device_id: str,
        hardware: str,
        product: str,
        image_root: bytes,
        director_root: bytes,
        delegations: bytes | None = None,
        delegation_version: int = 0,
        order_version: int = 0,
        role_version: int = 0,
        floor: int = 0,
        log_size: int = 0,
        log_root: str = "",
    ) -> None:
        self.device_id = device_id
        self.hardware = hardware
        self.product = product
        self.floor = floor
        self.log_size = log_size  # of the pinned log; 0: none was seen yet
        self.log_root = log_root
        self.image = Root(_File(image_root, ROOT_MAX), "image")
        self.director = Root(_File(director_root, ROOT_MAX), "director")
        self.order_version = order_version
        self.role_version = role_version
        self.delegation_version = 0
        self.release: Holders | None = None
        self._delegations: _File | None = None
        self._vouched_for = False
        if delegations is not None:
            self._delegated(_File(delegations, ROOT_MAX))
            self._look_again()
            self.delegation_version = delegation_version  # 0 where a new root had it forgotten

    def wants(self, told: dict[str, Any]) -> list[tuple[str, str]]:
        """(repository, file) to fetch before the order, in this order, by `trust` of the check's answer."""
        found = []
        for root, name in ((self.director, "director_root_version"), (self.image, "root_version")):
            newest = min(number(told.get(name)), root.version + ROOTS_MAX)
            numbers = range(root.version + 1, newest + 1)
            found.extend([(root.repository, str(version) + ".root.json") for version in numbers])
        newest = number(told.get("delegation_version"))
        if newest > self.delegation_version or not self._vouched_for:
            found.append(("image", str(newest) + ".targets.json"))
        return found

    def take_root(self, repository: str, body: bytes) -> None:
        """The next root of this repository."""
        old = self.image if repository == "image" else self.director
        file = _File(body, ROOT_MAX)
        new = Root(file, repository)
        file.verify(old.root, "root")
        file.verify(new.root, "root")
        if new.version != old.version + 1:
            raise Refused(ROLLBACK, "root: the next version")
        if repository == "image":
            self.image = new
            if not new.targets.outlives(old.targets):
                self.delegation_version = 0
            self._look_again()
        else:
            self.director = new
            if not new.targets.outlives(old.targets):
                self.order_version = 0

    def take_delegations(self, body: bytes, now: int | None) -> None:
        """The delegations by the image root's targets keys. `now` in Unix seconds, None without a clock."""
        file = _File(body, ROOT_MAX)
        file.verify(self.image.targets, "delegations")
        _typed(file.signed, "targets")
        if _version(file.signed) < self.delegation_version:
            raise Refused(ROLLBACK, "delegations: version")
        _fresh(_seconds(file.signed.get("expires")), now, "delegations")
        self._delegated(file)
        self._vouched_for = True

    def _delegated(self, file: "_File") -> None:
        found, version = table(file.signed.get("delegations")), _version(file.signed)
        _seconds(file.signed.get("expires"))
        roles = found.get("roles")
        for role in roles if isinstance(roles, list) else ():
            if isinstance(role, dict) and role.get("name") == self.product:
                break
        else:
            raise Refused(SIGNATURE, "delegations: this product")
        if role.get("paths") != [self.product + "/*/*"]:
            raise Refused(SIGNATURE, "delegations: this product's paths")
        release = _holders(table(found.get("keys")), role)
        if self.release is not None and not release.outlives(self.release):
            self.role_version = 0
        self.release = release
        self.delegation_version = version
        self._delegations = file

    def _look_again(self) -> None:
        """Whether the stored delegations are signed by the keys that the image root names now."""
        try:
            if self._delegations is not None:
                self._delegations.verify(self.image.targets, "delegations")
            self._vouched_for = self._delegations is not None
        except Refused:
            self._vouched_for = False

    def decide(
        self, order: bytes, role: bytes | None, nonce: str | None, now: int | None, ask: Any = None
    ) -> Image | None:
        """What to install, or None: up to date. `role` may be None while nothing is ordered. `nonce` is what
        this check sent, None if it sent none (then there must be a clock). `ask(leaves, since, size)` gets
        what `/api/log/compact` answers for these hashes; without it nothing is pinned, and a pin refuses."""
        if nonce is None and now is None:
            raise Refused(EXPIRED, "order: a nonce or a clock")
        for root in (self.director, self.image):
            _fresh(root.expires, now, "root")
        told = self._order(order, nonce, now)
        images = table(told.get("targets"))
        if not images:
            self.order_version = _version(told)
            return None
        vouches = self._role(role or b"", now)
        vouched = vouches.signed
        for path, image in images.items():
            found = self._match(path, table(image), table(vouched.get("targets")).get(path))
        entry = vouches.entry("image", self.product, _version(vouched))
        seen = self._logged(told, [_order_entry(found), entry, self.image.entry, self.director.entry], ask)
        self.log_size, self.log_root = seen
        self.order_version = _version(told)
        self.role_version = _version(vouched)
        return found

    def _order(self, body: bytes, nonce: str | None, now: int | None) -> dict[str, Any]:
        file = _File(body, ORDER_MAX)
        file.verify(self.director.targets, "order")
        signed = file.signed
        _typed(signed, "targets")
        if _version(signed) < self.order_version:
            raise Refused(ROLLBACK, "order: version")
        if signed.get("device_id") != self.device_id:
            raise Refused(SIGNATURE, "order: this device")
        if nonce is not None and signed.get("nonce") != nonce:
            raise Refused(ROLLBACK, "order: nonce")
        _fresh(_seconds(signed.get("expires")), now, "order")
        if "delegations" in signed:
            raise Refused(SIGNATURE, "order: no delegations")
        if len(table(signed.get("targets"))) > 1:
            raise Refused(SIGNATURE, "order: at most one image")
        return signed

    def _role(self, body: bytes, now: int | None) -> "_File":
        if self.release is None or self._delegations is None or not self._vouched_for:
            raise Refused(SIGNATURE, "role: delegations")
        _fresh(_seconds(self._delegations.signed.get("expires")), now, "delegations")
        file = _File(body, ROLE_MAX)
        file.verify(self.release, "role")
        _typed(file.signed, "targets")
        if _version(file.signed) < self.role_version:
            raise Refused(ROLLBACK, "role: version")
        _fresh(_seconds(file.signed.get("expires")), now, "role")
        return file

    def _match(self, path: str, ordered: dict[str, Any], vouched: object) -> Image:
        if path.count("/") != 2 or not path.startswith(self.product + "/"):
            raise Refused(SIGNATURE, "match: this product")
        if not isinstance(vouched, dict):
            raise Refused(SIGNATURE, "match: vouched for")
        told, custom = table(ordered.get("custom")), table(vouched.get("custom"))
        same = told.get("image") == custom and ordered.get("length") == vouched.get("length")
        if not same or ordered.get("hashes") != vouched.get("hashes"):
            raise Refused(HASH, "match: the same image")
        if told.get("device_id") != self.device_id:
            raise Refused(SIGNATURE, "match: this device")
        hardware = custom.get("hardware")
        if not isinstance(hardware, list) or self.hardware not in hardware:
            raise Refused(HARDWARE, "match: hardware")
        if number(custom.get("security_version")) < self.floor:
            raise Refused(FLOOR, "match: floor")
        table(vouched.get("hashes"))
        return Image(path, vouched, told)

    def _logged(self, told: dict[str, Any], entries: list[bytes], ask: Any) -> tuple[int, str]:
        """Size and root to pin: of the log that the order shows, which goes on from the pinned one and has
        these entries."""
        if "log" not in told or ask is None:
            if self.log_size:
                raise Refused(SIGNATURE, "log: shown and proved")
            return 0, ""
        size, root = number(table(told["log"]).get("size")), text(told["log"].get("root"))
        if size < self.log_size:
            raise Refused(ROLLBACK, "log: size")
        leaves = [leaf_hash(entry) for entry in entries]
        body = ask([hexlify(leaf).decode() for leaf in leaves], self.log_size, size)
        if len(body) > LOG_MAX:
            raise Refused(SIGNATURE, "form: size")
        proofs, end = value(body, 0, 1)
        if end != len(body):
            raise Refused(SIGNATURE, "form: the end")
        steps, top = _steps(table(proofs).get("consistency")), _digest(root)
        if self.log_size and not extends(self.log_size, _digest(self.log_root), size, top, steps):
            raise Refused(SIGNATURE, "log: goes on")
        places = proofs.get("inclusions")
        if not isinstance(places, list) or len(places) != len(leaves):
            raise Refused(SIGNATURE, "log: proofs")
        for leaf, place in zip(leaves, places):  # noqa: B905 - MicroPython has no strict
            index, steps = number(table(place).get("index")), _steps(place.get("proof"))
            if not includes(leaf, index, size, steps, top):
                raise Refused(SIGNATURE, "log: has it")
        return size, root


# --- a signed file ----------------------------------------------------------------------------------


class _File:
    """The parts of a file; `signed` is believed when `verify` has passed."""

    def __init__(self, body: bytes, most: int) -> None:
        if len(body) > most:
            raise Refused(SIGNATURE, "form: size")
        expect(body, 0, b'{"signatures":[')
        signatures, at = value(body, 14, 1)
        expect(body, at, b',"signed":{')
        signed, end = value(body, at + 10, 1)
        self.signed: dict[str, Any] = signed
        if body[end:] != b"}":
            raise Refused(SIGNATURE, "form: the end")
        if len(signatures) > SIGNATURES:
            raise Refused(SIGNATURE, "form: count")
        self.signatures: dict[str, str] = {}
        for made in signatures:
            keyid, sig = text(table(made).get("keyid")), text(made.get("sig"))
            if keyid in self.signatures:
                raise Refused(SIGNATURE, "form: a key signs once")
            self.signatures[keyid] = sig
        self._body = body
        self._slice = (at + 10, end)

    def entry(self, repo: str, role: str, version: int) -> bytes:
        """As the log tells that this file was published."""
        digest = hexlify(hashlib.sha256(self._body).digest()).decode()
        told = '{"entry":"file","length":%d,"repo":"%s","role":"%s","sha256":"%s","version":%d}'
        return (told % (len(self._body), repo, role, digest, version)).encode()

    def verify(self, holders: Holders, what: str) -> None:
        """Raises `Refused` unless enough of these holders signed."""
        digest = self._digest()
        good = 0
        for keyid, sig in self.signatures.items():
            if good < holders.threshold and keyid in holders.keys:
                good += verifies(holders.keys[keyid], sig, digest)
        if good < holders.threshold:
            raise Refused(SIGNATURE, what + ": signatures")

    def _digest(self) -> bytes:
        """Of what was signed: the slice with its one escape undone, piece by piece, for memory is short."""
        at, end = self._slice
        view, hashed = memoryview(self._body), hashlib.sha256()
        while (found := self._body.find(b"\\n", at, end)) >= 0:
            hashed.update(view[at:found])
            hashed.update(b"\n")
            at = found + 2
        hashed.update(view[at:end])
        return hashed.digest()


def _order_entry(found: Image) -> bytes:
    """As the log tells that this image was ordered."""
    told = '{"deployment":"%s","entry":"order","length":%d,"mandatory":%s,"path":"%s","sha256":"%s"}'
    mandatory = "true" if found.mandatory else "false"
    return (told % (found.deployment, found.length, mandatory, found.path, found.sha256)).encode()


def _steps(found: object) -> list[bytes]:
    if not isinstance(found, list) or len(found) > STEPS:
        raise Refused(SIGNATURE, "log: proofs")
    return [_digest(text(step)) for step in found]


def _digest(said: str) -> bytes:
    try:
        raw = unhexlify(said)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise Refused(SIGNATURE, "log: proofs")
    return raw


def _holders(keys: dict[str, Any], role: object) -> Holders:
    named = table(role)
    keyids, threshold = named.get("keyids"), number(named.get("threshold"))
    if not isinstance(keyids, list) or not 0 < threshold <= len(keyids) <= KEYS:
        raise Refused(SIGNATURE, "keys: threshold")
    found: dict[str, tuple[int, int]] = {}
    for keyid in keyids:
        point = _point(table(keys.get(text(keyid))))
        if keyid in found or point in found.values():
            raise Refused(SIGNATURE, "keys: each once")
        found[keyid] = point
    return Holders(found, threshold)


_BEGIN, _END = "-----BEGIN PUBLIC KEY-----\n", "\n-----END PUBLIC KEY-----\n"
_SPKI = unhexlify("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


def _point(key: dict[str, Any]) -> tuple[int, int]:
    """X and Y of a P-256 key: the last 64 bytes of a file of fixed length."""
    if key.get("keytype") != "ecdsa" or key.get("scheme") != "ecdsa-sha2-nistp256":
        raise Refused(SIGNATURE, "keys: P-256")
    pem = text(table(key.get("keyval")).get("public"))
    if not pem.startswith(_BEGIN) or not pem.endswith(_END):
        raise Refused(SIGNATURE, "keys: P-256")
    try:
        der = a2b_base64(pem[len(_BEGIN) : -len(_END)].replace("\n", "").encode())
    except ValueError:
        raise Refused(SIGNATURE, "keys: P-256") from None
    if len(der) != 91 or der[:27] != _SPKI:
        raise Refused(SIGNATURE, "keys: P-256")
    x, y = int.from_bytes(der[27:59], "big"), int.from_bytes(der[59:], "big")
    if not on_curve(x, y):
        raise Refused(SIGNATURE, "keys: P-256")
    return x, y


def _typed(signed: dict[str, Any], kind: str) -> None:
    if signed.get("_type") != kind or not text(signed.get("spec_version")).startswith("1."):
        raise Refused(SIGNATURE, "type: " + kind)


def _fresh(expires: int, now: int | None, what: str) -> None:
    if now is not None and expires <= now:
        raise Refused(EXPIRED, what + ": expired")


def _version(signed: dict[str, Any]) -> int:
    found = number(signed.get("version"))
    if found < 1:
        raise Refused(SIGNATURE, "form: version")
    return found


def _seconds(expires: object) -> int:
    """`2026-11-23T12:00:00Z` in Unix seconds."""
    said = text(expires)
    if len(said) != 20 or said[4] + said[7] + said[10] + said[13] + said[16] + said[19] != "--T::Z":
        raise Refused(SIGNATURE, "form: expiry")
    digits = said[:4] + said[5:7] + said[8:10] + said[11:13] + said[14:16] + said[17:19]
    if not digits.isdigit():
        raise Refused(SIGNATURE, "form: expiry")
    year, month, day = int(said[:4]), int(said[5:7]), int(said[8:10])
    hour, minute, second = int(said[11:13]), int(said[14:16]), int(said[17:19])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60):
        raise Refused(SIGNATURE, "form: expiry")
    year -= month <= 2
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day
    return (days - 719469) * 86400 + hour * 3600 + minute * 60 + second
