"""Releases and their bytes: what is refused, with which sentence, and that nothing of it stays."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from skylift.core.errors import Kind, Rejected, Unavailable
from skylift.engine import publish
from skylift.engine.blobs import BlobStore, Intake
from skylift.engine.publish import NewRelease
from skylift.store import releases
from skylift.testkit.trustlab import HARDWARE, PRODUCT, Lab


def files_below(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def _judge(
    intake: Intake, body: bytes, kind: str, sha256: str | None = None, length: int | None = None
) -> None:
    for at in range(0, len(body), 4096):
        intake.write(body[at : at + 4096])
    publish.check_bytes(kind, intake, sha256, length)


def refused(lab: Lab, body: bytes, kind: str = "image", **announced: Any) -> Rejected:
    """The upload of these bytes is refused, and nothing of it is left."""
    with lab.database.read() as conn:
        number = len(releases.page(conn, limit=500))
    release = lab.draft(NewRelease(PRODUCT, f"0.{number}", kind))
    intake = lab.blobs.intake(10_000)
    before = files_below(lab.blobs.directory)
    try:
        with pytest.raises(Rejected) as caught:
            _judge(intake, body, kind, **announced)
    finally:
        intake.drop()
    assert [name for name in before if name not in files_below(lab.blobs.directory)] == [intake._path.name]
    with lab.database.read() as conn:
        assert releases.artifacts_of(conn, release) == []
    return caught.value


def test_a_version_that_exists_already_is_refused(lab: Lab) -> None:
    lab.released("1.0.0")
    with pytest.raises(Rejected, match="has a release of that version already") as caught:
        lab.draft(NewRelease(PRODUCT, "1.0.0"))
    assert (caught.value.kind, caught.value.field, caught.value.value) == (
        Kind.CONFLICT,
        "version",
        "1.0.0",
    )
    with pytest.raises(Rejected):
        lab.draft(NewRelease(PRODUCT, "1.0.0", kind="config"))  # one name, one thing
    lab.ceremony("sensor", "camera")
    assert lab.draft(NewRelease("camera", "1.0.0"))  # another product's version is another version


IMPOSSIBLE = (
    (NewRelease("", "1.0"), "product"),
    (NewRelease("a/b", "1.0"), "product"),
    (NewRelease("root", "1.0"), "product"),
    (NewRelease("sеnsor", "1.0"), "product"),  # a Cyrillic e
    (NewRelease(PRODUCT, ""), "version"),
    (NewRelease(PRODUCT, "1.0\n"), "version"),
    (NewRelease(PRODUCT, "../../1"), "version"),
    (NewRelease(PRODUCT, "1*"), "version"),
    (NewRelease(PRODUCT, "v" * 65), "version"),
    (NewRelease(PRODUCT, "1.0", kind="script"), "kind"),
    (NewRelease(PRODUCT, "1.0", notes="x" * 10_001), "notes"),
    (NewRelease(PRODUCT, "1.0", security_version=-1), "security_version"),
    (NewRelease(PRODUCT, "1.0", security_version=1 << 31), "security_version"),
)


def test_an_impossible_release_is_refused_by_name(lab: Lab) -> None:
    for new, field in IMPOSSIBLE:
        with pytest.raises(Rejected) as caught:
            lab.draft(new)
        assert caught.value.field == field
        assert field in str(caught.value)
    with lab.database.read() as conn:
        assert releases.page(conn, limit=10) == []


def test_an_empty_image_is_refused(lab: Lab) -> None:
    assert refused(lab, b"").code == "empty_image"


def test_a_truncated_image_is_refused(lab: Lab) -> None:
    error = refused(lab, b"half", length=8)
    assert error.code == "truncated"
    assert "4 bytes" in str(error)
    assert "8 were announced" in str(error)


def test_a_longer_image_than_announced_is_refused(lab: Lab) -> None:
    assert refused(lab, b"more than said", length=8).code == "truncated"


def test_other_bytes_than_announced_are_refused(lab: Lab) -> None:
    told = hashlib.sha256(b"what I meant").hexdigest()
    error = refused(lab, b"what arrived", sha256=told)
    assert error.code == "hash_mismatch"
    assert hashlib.sha256(b"what arrived").hexdigest() in str(error)


def test_an_image_larger_than_the_limit_is_refused_while_it_comes_in(lab: Lab) -> None:
    error = refused(lab, b"x" * 50_000)
    assert (error.code, error.kind) == ("too_large", Kind.TOO_LARGE)
    assert "10000 bytes" in str(error)


def broken_zip() -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("app.py", b"print('hello')" * 10)
    raw = body.getvalue()
    return raw.replace(b"hello", b"jello", 1)


CORRUPT = {
    "erased flash": b"\xff" * 4096,
    "zeros": b"\0" * 100,
    "a cut ELF": b"\x7fELF",
    "a cut squashfs": b"hsqs" + b"\0" * 20,
    "a zip that fails its checksum": broken_zip(),
    "a cut zip": broken_zip()[:40],
}


def test_a_corrupt_image_of_a_known_format_is_refused(lab: Lab) -> None:
    for what, body in CORRUPT.items():
        assert refused(lab, body).code == "corrupt_image", what


def test_a_configuration_that_does_not_read_is_refused(lab: Lab) -> None:
    for body, words in (
        (b"\xff\xfe", "UTF-8"),
        (b"[1, 2]", "object at the top"),
        (b"{unfinished", "JSON or TOML"),
        (b"[" * 5000, "JSON or TOML"),
    ):
        assert words in str(refused(lab, body, kind="config"))


def test_a_configuration_has_a_bound(lab: Lab) -> None:
    release = lab.draft(NewRelease(PRODUCT, "1", kind="config"))
    with pytest.raises(Rejected, match="at most 65536"):
        lab.upload(release, b'{"a": "' + b"x" * (64 << 10) + b'"}')
    lab.upload(release, b'{"interval": 60}')
    with lab.database.read() as conn:
        [artifact] = releases.artifacts_of(conn, release)
    assert artifact.facts == {"format": "json", "keys": 1}


def test_a_configuration_is_signed_and_ordered_like_an_image(lab: Lab) -> None:
    release = lab.released("cfg-1", b'interval = 60\n[net]\nssid = "x"\n', kind="config")
    device = lab.enroll()
    device.order(release)
    found = device.verify()
    assert found is not None
    assert (found.kind, found.version) == ("config", "cfg-1")


def test_a_device_type_comes_once_into_a_release(lab: Lab) -> None:
    release = lab.draft(NewRelease(PRODUCT, "1.0.0"))
    lab.upload(release, b"one")
    with pytest.raises(Rejected, match="has an image for it already") as caught:
        lab.upload(release, b"two")
    assert caught.value.field == "device_type"
    lab.upload(release, b"two", "sensor-v3")
    with pytest.raises(Rejected):
        lab.upload(release, b"x", "sensor/v3")


def test_a_sealed_release_takes_no_more_images(lab: Lab) -> None:
    release = lab.sealed("1.0.0")
    with pytest.raises(Rejected, match="it takes no more artifacts"):
        lab.upload(release, b"late", "sensor-v3")
    lab.sign(0, 1)
    with pytest.raises(Rejected, match="release is published"):
        lab.upload(release, b"later", "sensor-v3")


def test_an_unknown_release_takes_no_image(lab: Lab) -> None:
    with pytest.raises(Rejected, match="there is no such release"):
        lab.upload("rel_none", b"x")


def test_the_same_bytes_are_stored_once(lab: Lab) -> None:
    first, second = (lab.draft(NewRelease(PRODUCT, version)) for version in ("1.0.0", "1.0.1"))
    lab.upload(first, b"same")
    lab.upload(second, b"same")
    assert files_below(lab.blobs.directory) == [hashlib.sha256(b"same").hexdigest()]


# --- what a release has for a device ----------------------------------------------------------------


def test_only_what_is_published_and_fits_is_offered(lab: Lab) -> None:
    waiting, out = lab.sealed("1.0.0"), None
    with lab.database.read() as conn:
        assert publish.offerable(conn, waiting, HARDWARE) is None
    lab.sign(0, 1)
    out = waiting
    with lab.database.read() as conn:
        assert publish.offerable(conn, out, "pump-v1") is None
        assert publish.offerable(conn, "rel_none", HARDWARE) is None
        found = publish.offerable(conn, out, HARDWARE)
    assert found is not None
    assert found.product == "sensor"
    assert found.target["path"] == f"sensor/1.0.0/{HARDWARE}"
    assert found.target["length"] == found.full.size


# --- the blob store --------------------------------------------------------------------------------


def test_a_crash_during_an_upload_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    kept = store.intake(100)
    kept.write(b"whole")
    stored = kept.keep()
    store.intake(100).write(b"cut in the middle")  # and the power goes
    (store.scratch / "tmpdelta").mkdir()
    (store.scratch / "tmpdelta" / "delta.new").write_bytes(b"half a delta")
    again = BlobStore(tmp_path / "blobs")
    again.sweep(starting=True)
    assert files_below(tmp_path / "blobs") == [stored.sha256]
    assert list(again.scratch.iterdir()) == []
    assert again.has(stored.sha256)


def test_a_full_disk_is_trouble_and_leaves_nothing(tmp_path: Path) -> None:
    """/dev/full takes no byte: the upload fails in our words, wherever it is noticed."""
    store = BlobStore(tmp_path / "blobs")
    intake = store.intake(1 << 20)
    intake._file.close()
    intake._file = Path("/dev/full").open("wb")  # noqa: SIM115 - closed by drop
    intake.write(b"a little")  # buffered
    with pytest.raises(Unavailable, match="No space left"):
        intake.keep()
    intake.drop()
    assert files_below(tmp_path / "blobs") == []


def test_dropping_after_keeping_keeps(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    intake = store.intake(100)
    intake.write(b"bytes")
    stored = intake.keep()
    intake.drop()
    assert store.path(stored.sha256).read_bytes() == b"bytes"
    assert stored == (hashlib.sha256(b"bytes").hexdigest(), 5) or stored.size == 5
