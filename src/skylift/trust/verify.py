"""What a device verifies before it installs a byte: python-tuf twice, and the cross-checks of our own.

In this order: the director's chain (root, timestamp, snapshot, targets); no delegations, this device's id,
at most one image; nothing ordered is an answer too; the image repo's chain and the delegated role for
exactly that path; length, digest and description equal in both; this hardware listed; the security floor.
Downloading, hashing while writing, and raising the floor after a confirmed boot are the agent's.

python-tuf's own client accepts device A's director files on device B, and the director's next root as the
image's, for the same people hold both: the checks of identity are ours. They are made
before python-tuf sees a file, for what python-tuf verifies it also keeps: another device's timestamp, were it
kept, would make this device's own look like a rollback for ever.

Files are fetched by `fetch(repo, filename, max_bytes)`, which raises `FileNotFoundError` for a file that is
not there and `Unavailable` when the way is bad. A cache that a power cut tore costs a new fetch, no trust:
python-tuf verifies what it reads from its cache like anything else, beginning at the factory's root.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.trust import bounds
from skylift.trust.roles import DIRECTOR, IMAGE, rule

Fetch = Callable[[str, str, int], bytes]

_CONFIG = UpdaterConfig(
    max_root_rotations=bounds.ROOTS,
    max_delegations=4,
    root_max_length=64 << 10,
    timestamp_max_length=16 << 10,
    snapshot_max_length=64 << 10,
    targets_max_length=512 << 10,
)


@dataclass(frozen=True, slots=True)
class Verified:
    """An order that both repositories vouch for. `sha256` and `length` are the image's."""

    path: str
    length: int
    sha256: str
    version: str
    security_version: int
    kind: str
    deployment: str
    attempt: int
    mandatory: bool


class _Fetcher(FetcherInterface):
    """python-tuf's door to our transport. Lengths that signed metadata names are bounded here too: online
    keys may be stolen, and this device's memory is small."""

    def __init__(self, repo: str, device_id: str, fetch: Fetch) -> None:
        self._repo = repo
        self._device_id = device_id
        self._get = fetch
        self.failed: Unavailable | None = None

    def download_bytes(self, url: str, max_length: int) -> bytes:
        name = url.rpartition("/")[2]
        at_most = min(max_length, _CONFIG.targets_max_length)
        try:
            body = self._get(self._repo, name, at_most)
        except FileNotFoundError as e:
            raise exceptions.DownloadHTTPError(str(e), 404) from e
        except Unavailable as e:
            self.failed = e
            raise exceptions.DownloadError(str(e)) from e
        if len(body) > at_most:
            raise exceptions.DownloadLengthMismatchError(f"more than {at_most} bytes")
        bounds.check(name, body)
        if name.endswith("root.json"):
            _check_repository(body, name, self._repo)
        elif self._repo == DIRECTOR:
            _check_whose(body, name, self._device_id)
        return body

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise NotImplementedError("images are downloaded by the agent, resumable, not by python-tuf")


@dataclass
class DeviceTrust:
    """The device's trust: two caches below `directory`, the factory's two roots, who and what it is.

    `products`: kind (image, config) -> the one product whose releases it takes. Release keys of one product
    may say that an image of theirs fits any hardware; this is what holds them to their own devices.
    """

    directory: Path
    image_root: bytes
    director_root: bytes
    device_id: str
    hardware: str
    products: Mapping[str, str] = field(default_factory=dict)

    def verify(self, fetch: Fetch, now: datetime, floor: int, build_time: datetime) -> Verified | None:
        """What this device is ordered to install, or None. Raises `TrustError` (its code is the `Reason` to
        report) and `Unavailable`."""
        at = self._time(now, build_time)
        try:
            ordered = self._order(fetch, at)
        except TrustError as e:
            # A new root forgets the time that a stolen key had told: `_order` may just have fetched it.
            known = self._time(now, build_time)
            if e.code != Reason.METADATA_EXPIRED or known >= at:
                raise
            at = known
            ordered = self._order(fetch, at)
        if ordered is None:
            return None
        vouched = self._vouched(fetch, at, ordered.path)
        return self._match(ordered, vouched, floor)

    def _order(self, fetch: Fetch, at: datetime) -> TargetFile | None:
        updater, fetcher = self._updater(DIRECTOR, self.director_root, fetch, at)
        _guard(updater.refresh, fetcher)
        self._remember()
        # The verified order, read back from the cache python-tuf has just written.
        order = Metadata[Targets].from_bytes((self.directory / DIRECTOR / "targets.json").read_bytes()).signed
        if order.delegations is not None:
            raise TrustError(Reason.SIGNATURE_INVALID, "the director delegates, which it must not")
        if order.unrecognized_fields.get("device_id") != self.device_id:
            whose = order.unrecognized_fields.get("device_id")
            raise TrustError(Reason.SIGNATURE_INVALID, f"the order is for {whose!r}, not for this device")
        if len(order.targets) > 1:
            raise TrustError(Reason.SIGNATURE_INVALID, "the order names more than one image")
        return next(iter(order.targets.values()), None)

    def _vouched(self, fetch: Fetch, at: datetime, path: str) -> TargetFile:
        updater, fetcher = self._updater(IMAGE, self.image_root, fetch, at)
        found = _guard(lambda: updater.get_targetinfo(path), fetcher)
        if not isinstance(found, TargetFile):
            raise TrustError(Reason.SIGNATURE_INVALID, f"no release key vouches for {path}")
        return found

    def _match(self, ordered: TargetFile, vouched: TargetFile, floor: int) -> Verified:
        said = ordered.unrecognized_fields.get("custom")
        custom = vouched.unrecognized_fields.get("custom")
        if not isinstance(said, dict) or not isinstance(custom, dict):
            raise TrustError(Reason.SIGNATURE_INVALID, "the order or the image lacks its description")
        if (ordered.length, ordered.hashes) != (vouched.length, vouched.hashes) or said.get(
            "image"
        ) != custom:
            raise TrustError(Reason.HASH_MISMATCH, "director and image repository disagree about the image")
        if said.get("device_id") != self.device_id:
            raise TrustError(Reason.SIGNATURE_INVALID, "the order's image is for another device")
        hardware = custom.get("hardware")
        if not isinstance(hardware, list) or self.hardware not in hardware:
            raise TrustError(Reason.WRONG_HARDWARE, f"the image is for {hardware}")
        product = vouched.path.partition("/")[0]
        if product != (own := self.products.get(str(custom.get("kind")), product)):
            raise TrustError(Reason.WRONG_HARDWARE, f"the image is of product {product}, not of {own}")
        security = custom.get("security_version", 0)
        if not isinstance(security, int) or security < floor:
            raise TrustError(
                Reason.BELOW_SECURITY_FLOOR, f"security_version {security} is below the floor of {floor}"
            )
        return _verified(vouched, custom, said)

    def _updater(self, repo: str, root: bytes, fetch: Fetch, at: datetime) -> tuple[Updater, _Fetcher]:
        cache = self.directory / repo
        fetcher = _Fetcher(repo, self.device_id, fetch)
        try:
            _check_repository(root, f"the factory's {repo} root", repo)
            cache.mkdir(parents=True, exist_ok=True)
            _sweep(cache)
            updater = Updater(
                str(cache), f"skylift:///{repo}/", fetcher=fetcher, config=_CONFIG, bootstrap=root
            )
        except (exceptions.RepositoryError, DeserializationError) as e:
            raise TrustError(Reason.SIGNATURE_INVALID, f"the factory's {repo} root is unusable: {e}") from e
        except OSError as e:
            raise _disk(e) from e
        # python-tuf takes the time from the clock when it is made; a device's clock may be wrong, and what it
        # has seen signed counts too. There is no public parameter for it in 7.0.
        updater._trusted_set.reference_time = at
        return updater, fetcher

    # --- the newest time any signature has told ----------------------------------------------------

    def _time(self, now: datetime, build_time: datetime) -> datetime:
        return max(now.astimezone(UTC), build_time, self._newest_seen())

    def _newest_seen(self) -> datetime:
        """As told by the key that signs timestamps today: a key that was replaced may have lied."""
        try:
            seen = json.loads((self.directory / "newest.json").read_text())
            if seen["keyids"] == self._timestamp_keyids():
                return datetime.fromtimestamp(int(seen["newest"]), UTC)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, DeserializationError):
            pass  # never written, or torn
        return datetime.fromtimestamp(0, UTC)  # the other two clocks remain

    def _timestamp_keyids(self) -> list[str]:
        try:
            newest = (self.directory / DIRECTOR / "root.json").read_bytes()
            known = Metadata[Root].from_bytes(newest).signed
        except (OSError, DeserializationError):
            known = Metadata[Root].from_bytes(self.director_root).signed
        return sorted(known.roles["timestamp"].keyids)

    def _remember(self) -> None:
        raw = (self.directory / DIRECTOR / "timestamp.json").read_bytes()
        signed = Metadata[Timestamp].from_bytes(raw).signed
        newest = signed.expires - rule(DIRECTOR, "timestamp").life
        if newest > self._newest_seen():
            told = {"newest": int(newest.timestamp()), "keyids": self._timestamp_keyids()}
            temporary = self.directory / "newest.json.new"
            temporary.write_text(json.dumps(told))
            temporary.replace(self.directory / "newest.json")


def _sweep(cache: Path) -> None:
    """Temporary files that a power cut left behind."""
    for leftover in cache.glob("tmp*"):
        if leftover.suffix != ".json":  # a product may be called tmp-something: that is its role
            leftover.unlink(missing_ok=True)


def _check_whose(body: bytes, name: str, device_id: str) -> None:
    """Raises `TrustError` for another device's director file."""
    if (whose := _word(body, "device_id")) != device_id:
        raise TrustError(Reason.SIGNATURE_INVALID, f"{name} is for {whose!r}, not for this device")


def _check_repository(body: bytes, name: str, repo: str) -> None:
    """Raises `TrustError` for another repository's root."""
    if (whose := _word(body, "repository")) != repo:
        raise TrustError(Reason.SIGNATURE_INVALID, f"{name} is a root of {whose!r}, not of {repo!r}")


def _word(body: bytes, name: str) -> object:
    """What the file, not verified yet, says in this field; None also where it cannot be read. Python-tuf
    verifies the very same bytes."""
    try:
        return json.loads(body)["signed"].get(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _verified(vouched: TargetFile, custom: dict[str, Any], said: dict[str, Any]) -> Verified:
    try:
        return Verified(
            path=vouched.path,
            length=vouched.length,
            sha256=vouched.hashes["sha256"],
            version=str(custom["version"]),
            security_version=int(custom.get("security_version", 0)),
            kind=str(custom["kind"]),
            deployment=str(said["deployment"]),
            attempt=int(said["attempt"]),
            mandatory=bool(said.get("mandatory", False)),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise TrustError(Reason.SIGNATURE_INVALID, f"the image's description is incomplete: {e}") from e


def _guard(deed: Callable[[], Any], fetcher: _Fetcher) -> Any:
    """python-tuf's errors in our words."""
    try:
        return deed()
    except exceptions.ExpiredMetadataError as e:
        raise TrustError(Reason.METADATA_EXPIRED, f"signed metadata has expired: {e}") from e
    except exceptions.BadVersionNumberError as e:
        raise TrustError(Reason.METADATA_ROLLBACK, f"signed metadata went backwards: {e}") from e
    except exceptions.DownloadLengthMismatchError as e:
        raise TrustError(Reason.SIGNATURE_INVALID, f"metadata is larger than allowed: {e}") from e
    except exceptions.DownloadHTTPError as e:
        raise Unavailable(f"a metadata file is missing: {e}", 30) from e
    except exceptions.DownloadError as e:
        raise fetcher.failed or Unavailable(str(e), 30) from e
    except OSError as e:
        raise _disk(e) from e
    except (exceptions.RepositoryError, DeserializationError, ValueError, TypeError, KeyError) as e:
        raise TrustError(Reason.SIGNATURE_INVALID, f"signed metadata does not verify: {e}") from e


def _disk(error: OSError) -> Unavailable:
    return Unavailable(f"the trust cache cannot be written: {error.strerror or error}", 60)
