"""What a blob store promises, on a folder and on an S3-compatible store."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from skylift.core.errors import Rejected, Unavailable
from skylift.engine.blobs import Blobs, BlobStore, put_file
from skylift.engine.bucket import PART, Bucket, Place
from skylift.testkit.s3 import BUCKET, CREDENTIALS, ObjectStore

BODY = random.Random(1).randbytes(100_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectStore]:
    made = ObjectStore.make()
    yield made
    made.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def bucket(objects: ObjectStore, tmp_path: Path, where: str = BUCKET) -> Bucket:
    prefix = tmp_path.name  # of the test's own
    return Bucket(Place(f"s3://{where}/{prefix}", objects.url, allow_http=True), tmp_path / "scratch")


@pytest.fixture(params=["folder", "bucket"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "folder":
        return BlobStore(tmp_path / "blobs")
    request.getfixturevalue("credentials")
    return bucket(request.getfixturevalue("objects"), tmp_path)


def keep(blobs: Blobs, body: bytes) -> str:
    intake = blobs.intake(len(body))
    for at in range(0, len(body), 10_000):
        intake.write(body[at : at + 10_000])
    stored = intake.keep()
    intake.drop()
    assert stored.size == len(body)
    return stored.sha256


def test_what_is_kept_is_there_under_its_digest(blobs: Blobs) -> None:
    assert not blobs.has(DIGEST)
    assert keep(blobs, BODY) == DIGEST
    assert blobs.has(DIGEST)
    with blobs.local(DIGEST) as path:
        assert path.read_bytes() == BODY
    assert list(blobs.scratch.iterdir()) == []
    assert keep(blobs, BODY) == DIGEST  # again: nothing changes
    assert blobs.has(DIGEST)


def test_nothing_is_there_before_it_is_whole(blobs: Blobs) -> None:
    intake = blobs.intake(len(BODY))
    intake.write(BODY)
    assert not blobs.has(DIGEST)
    intake.drop()
    assert not blobs.has(DIGEST)
    assert list(blobs.scratch.iterdir()) == []


def test_more_than_the_limit_is_refused_and_leaves_nothing(blobs: Blobs) -> None:
    intake = blobs.intake(10)
    with pytest.raises(Rejected):
        intake.write(b"eleven bytes")
    intake.drop()
    assert list(blobs.scratch.iterdir()) == []


def test_a_local_file_is_copied(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BODY)
    assert put_file(blobs, source).sha256 == DIGEST
    assert source.read_bytes() == BODY
    assert blobs.has(DIGEST)


def test_what_is_not_there_cannot_be_read(blobs: Blobs) -> None:
    with pytest.raises((Unavailable, FileNotFoundError)), blobs.local("0" * 64) as path:
        path.read_bytes()
    assert list(blobs.scratch.iterdir()) == []


def test_leftovers_are_swept_at_the_start(blobs: Blobs) -> None:
    blobs.intake(100).write(b"cut in the middle")
    keep(blobs, BODY)
    blobs.sweep()
    assert len(list(blobs.scratch.iterdir())) == 1  # it may still be on its way
    blobs.sweep(starting=True)
    assert list(blobs.scratch.iterdir()) == []
    assert blobs.has(DIGEST)


def test_a_shared_folder_keeps_what_is_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be another server's upload."""
    blobs = BlobStore(tmp_path / "blobs", shared=True)
    blobs.intake(100).write(b"another server's")
    blobs.sweep(starting=True)
    assert len(list(blobs.scratch.iterdir())) == 1
    monkeypatch.setattr("skylift.engine.blobs.LEFTOVER_S", -1.0)
    blobs.sweep()
    assert list(blobs.scratch.iterdir()) == []


# --- object stores --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("credentials")
def test_a_large_blob_goes_in_parts(objects: ObjectStore, tmp_path: Path) -> None:
    blobs = bucket(objects, tmp_path)
    body = random.Random(2).randbytes(2 * PART + 1000)
    digest = keep(blobs, body)
    with blobs.local(digest) as path:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


@pytest.mark.usefixtures("credentials")
def test_a_store_that_is_away_is_trouble_and_leaves_nothing(tmp_path: Path) -> None:
    away = ObjectStore(1)
    blobs = bucket(away, tmp_path)
    for ask in (blobs.check, lambda: blobs.has(DIGEST), lambda: keep(blobs, BODY)):
        with pytest.raises(Unavailable, match="the blob store does not answer") as told:
            ask()
        assert told.value.retry_after > 0
        assert "127.0.0.1" not in str(told.value)
    blobs.sweep(starting=True)
    with pytest.raises(Unavailable), blobs.local(DIGEST):
        pass
    assert list(blobs.scratch.iterdir()) == []


@pytest.mark.usefixtures("credentials")
def test_a_wrong_bucket_is_told_by_name(objects: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="there is no such bucket"):
        bucket(objects, tmp_path, "nobodys").check()
    with pytest.raises(Rejected, match="s3://bucket/prefix"):
        Bucket(Place("s3:/oops", objects.url), tmp_path)
    with pytest.raises(Rejected, match="blobs_allow_http"):
        Bucket(Place(f"s3://{BUCKET}/x", objects.url), tmp_path).check()


@pytest.mark.usefixtures("credentials")
def test_urls_are_signed_for_the_endpoint_that_devices_know(objects: ObjectStore, tmp_path: Path) -> None:
    place = Place(f"s3://{BUCKET}/x", objects.url, "http://images.example:9000", allow_http=True)
    url = Bucket(place, tmp_path).url(DIGEST, "GET") or ""
    assert url.startswith(f"http://images.example:9000/{BUCKET}/x/{DIGEST[:2]}/{DIGEST}?")
    assert "X-Amz-Expires=900" in url
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in url
