"""The agent's TUF client on a plain repository, as the conformance suite drives one.

The same python-tuf, the same bounds and fetcher rules as `trust.verify` (but for the one form in which our
files are written, which other repositories do not know, and whose a file is); no device, no director, no
order. `get(url, max_bytes)` is the way out: (status, at most so many bytes and one).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tuf.api import exceptions
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from skylift.core.errors import SkyliftError, TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.trust import bounds

Get = Callable[[str, int], tuple[int, bytes]]

MOST = 512 << 10  # bytes of any metadata file
CONFIG = UpdaterConfig(
    max_root_rotations=bounds.ROOTS,
    max_delegations=32,  # products delegate to nobody; other repositories do
    root_max_length=MOST,
    timestamp_max_length=16 << 10,
    snapshot_max_length=MOST,
    targets_max_length=MOST,
)


class _Fetcher(FetcherInterface):
    def __init__(self, get: Get) -> None:
        self._get = get

    def download_bytes(self, url: str, max_length: int) -> bytes:
        body = self._whole(url, min(max_length, MOST))
        bounds.check(url.rpartition("/")[2], body, strict=False)
        return body

    def _whole(self, url: str, at_most: int) -> bytes:
        try:
            status, body = self._get(url, at_most)
        except SkyliftError as e:
            raise exceptions.DownloadError(str(e)) from e
        if status != 200:
            raise exceptions.DownloadHTTPError(f"{url}: {status}", status)
        if len(body) > at_most:
            raise exceptions.DownloadLengthMismatchError(f"more than {at_most} bytes")
        return body

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self._whole(url, LARGEST)


LARGEST = 64 << 20  # of a target: the suite's have a few bytes


def initialise(metadata_dir: Path, trusted_root: bytes) -> None:
    """Keep the first root. Raises `TrustError` where it is none."""
    metadata_dir.mkdir(parents=True, exist_ok=True)
    bounds.check("root.json", trusted_root, strict=False)
    (metadata_dir / "root.json").write_bytes(trusted_root)


def refresh(metadata_dir: Path, metadata_url: str, get: Get) -> None:
    """Bring the top-level roles up to date. Raises `TrustError` and `Unavailable`."""
    _judged(lambda: _updater(metadata_dir, metadata_url, get).refresh())


def download(
    metadata_dir: Path,
    metadata_url: str,
    targets: Sequence[str],
    target_dir: Path,
    target_url: str,
    get: Get,
) -> None:
    """Fetch these targets, one after the other and by one state of the repository, each if its metadata
    vouches for it; the first that is refused ends it. Raises `TrustError` and `Unavailable`."""

    def deed() -> None:
        updater = _updater(metadata_dir, metadata_url, get)
        updater.target_dir = str(target_dir)
        for target in targets:
            found = updater.get_targetinfo(target)
            if found is None:
                raise TrustError(Reason.SIGNATURE_INVALID, f"nobody vouches for {target!r}")
            if updater.find_cached_target(found) is None:
                updater.download_target(found, target_base_url=target_url)

    _judged(deed)


def _updater(metadata_dir: Path, metadata_url: str, get: Get) -> Updater:
    return Updater(str(metadata_dir), metadata_url, fetcher=_Fetcher(get), config=CONFIG, bootstrap=None)


def _judged(deed: Callable[[], None]) -> None:
    try:
        deed()
    except exceptions.DownloadError as e:
        raise Unavailable(str(e)) from e
    except (exceptions.RepositoryError, ValueError, TypeError, KeyError) as e:
        raise TrustError(Reason.SIGNATURE_INVALID, f"metadata does not verify: {e}") from e
