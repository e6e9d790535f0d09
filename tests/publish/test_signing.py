"""Sealed, half signed, published: what gathers signatures, and what they are good for."""

import pytest

from skylift.core.errors import Rejected
from skylift.engine import gathering, publish, signing
from skylift.store import outbox, releases, trustfiles
from skylift.testkit.trustlab import ACTOR, HARDWARE, PRODUCT, Lab, stranger
from skylift.trust import ceremony, files, keys
from skylift.trust.files import Targets
from skylift.trust.keys import Signature
from skylift.trust.roles import DIRECTOR, IMAGE
from skylift.trust.roles import PRODUCT as RULE


def view(lab: Lab, release_id: str) -> dict[str, object]:
    with lab.database.read() as conn:
        return publish.view(conn, releases.find(conn, release_id))


def offered(lab: Lab, release_id: str) -> bool:
    with lab.database.read() as conn:
        return publish.offerable(conn, release_id, HARDWARE) is not None


def waiting_deltas(lab: Lab) -> int:
    with lab.database.read() as conn:
        return outbox.depth(conn)


def images(lab: Lab) -> set[str]:
    """What the newest published role vouches for."""
    with lab.database.read() as conn:
        known = trustfiles.latest(conn, IMAGE, PRODUCT)
    return set(files.read(PRODUCT, known.body, Targets).signed.targets) if known else set()


def test_a_release_needs_two_signatures_and_half_signed_is_visible(lab: Lab) -> None:
    release = lab.draft(publish.NewRelease(PRODUCT, "1.0.0"))
    lab.upload(release, b"the image")
    assert view(lab, release)["status"] == "draft"
    assert not offered(lab, release)

    lab.database.write(lambda conn: signing.seal(conn, release, ACTOR, lab.clock()))
    shown = view(lab, release)
    assert shown["status"] == "signing"
    assert shown["signing"]["signatures"] == 0  # type: ignore[index] # a dict in a dict
    assert not offered(lab, release)

    first, second, third = (key.public_key.keyid for key in lab.release_keys())
    answer = lab.sign(0)
    assert (answer["signatures"], answer["threshold"], answer["published"]) == (1, 2, False)
    half = view(lab, release)["signing"]
    assert half["signed_by"] == [first]  # type: ignore[index] # as above
    assert sorted(half["keyids"]) == sorted([first, second, third])  # type: ignore[index] # as above
    assert not offered(lab, release)
    assert waiting_deltas(lab) == 0
    assert not images(lab)

    answer = lab.sign(2)
    assert answer["published"]
    assert view(lab, release)["status"] == "published"
    assert "signing" not in view(lab, release)
    assert offered(lab, release)
    assert waiting_deltas(lab) == 1
    assert images(lab) == {"sensor/1.0.0/sensor-v2"}


def test_the_role_its_snapshot_and_its_timestamp_appear_together(lab: Lab) -> None:
    with lab.database.read() as conn:
        before = trustfiles.versions(conn, IMAGE)
    lab.released("1.0.0")
    with lab.database.read() as conn:
        after = trustfiles.versions(conn, IMAGE)
        snapshot = trustfiles.latest(conn, IMAGE, "snapshot")
    assert after == {
        **before,
        PRODUCT: 1,
        "snapshot": before["snapshot"] + 1,
        "timestamp": before["timestamp"] + 1,
    }
    assert snapshot is not None
    listed = files.read("snapshot", snapshot.body, files.Snapshot).signed.meta
    assert {name: meta.version for name, meta in listed.items()} == {"targets.json": 1, "sensor.json": 1}


def test_the_same_key_twice_counts_once(lab: Lab) -> None:
    lab.sealed("1.0.0")
    assert lab.sign(1)["signatures"] == 1
    again = lab.sign(1)
    assert (again["signatures"], again["published"]) == (1, False)


def test_signatures_that_are_none_are_refused_and_change_nothing(lab: Lab) -> None:
    release = lab.sealed("1.0.0")
    lab.sign(0)
    waiting = lab.pending()
    payload = files.read(PRODUCT, waiting.body, Targets).signed_bytes
    second = lab.release_keys()[1]
    good = second.sign(payload)
    other = stranger().sign(payload)

    def hand_in(signature: Signature, version: int = 1, role: str = PRODUCT) -> str:
        with pytest.raises(Rejected) as caught:
            lab.database.write(
                lambda conn: gathering.sign(conn, lab.online, role, version, signature, ACTOR, lab.clock())
            )
        return caught.value.code

    assert hand_in(other) == "untrusted"  # nobody's key
    assert hand_in(Signature(good.keyid, other.signature)) == "untrusted"  # another key's signature
    assert hand_in(Signature(good.keyid, second.sign(b"something else").signature)) == "untrusted"
    assert hand_in(Signature(good.keyid, "zz")) == "untrusted"
    assert hand_in(Signature(good.keyid, "")) == "untrusted"
    assert hand_in(good, version=2) == "untrusted"
    assert hand_in(good, role="camera") == "nothing_to_sign"
    assert hand_in(good, role="targets") == "nothing_to_sign"
    for name in ("root", "targets"):
        assert hand_in(lab.desk.signers(name, 3)[0].sign(payload)) == "untrusted"  # not release keys
    assert lab.pending() == waiting
    assert lab.status_of(release) == "signing"


def test_a_second_release_voids_the_signatures_of_the_file_it_joins(lab: Lab) -> None:
    """One file waits per product; what was signed said something else."""
    first = lab.sealed("1.0.0")
    old = lab.pending()
    lab.sign(0)
    second = lab.sealed("1.1.0")
    shown = view(lab, first)["signing"]
    assert shown["signatures"] == 0  # type: ignore[index] # a dict in a dict
    assert shown["releases"] == [first, second]  # type: ignore[index] # as above
    stale = lab.release_keys()[1].sign(files.read(PRODUCT, old.body, Targets).signed_bytes)
    with pytest.raises(Rejected, match="is no signature of sensor version 1"):
        lab.database.write(
            lambda conn: gathering.sign(conn, lab.online, PRODUCT, 1, stale, ACTOR, lab.clock())
        )
    lab.sign(0, 1)
    assert images(lab) == {"sensor/1.0.0/sensor-v2", "sensor/1.1.0/sensor-v2"}
    assert {lab.status_of(first), lab.status_of(second)} == {"published"}
    assert waiting_deltas(lab) == 2


def test_what_is_published_stays_when_the_next_is_signed(lab: Lab) -> None:
    lab.released("1.0.0")
    lab.sealed("1.1.0")
    assert images(lab) == {"sensor/1.0.0/sensor-v2"}
    lab.sign(1, 2)
    assert images(lab) == {"sensor/1.0.0/sensor-v2", "sensor/1.1.0/sensor-v2"}


def test_products_wait_and_are_published_apart(lab: Lab) -> None:
    lab.ceremony("sensor", "camera")
    sensor = lab.sealed("1.0.0")
    camera = lab.sealed("1.0.0", b"", "cam-1", product="camera")
    lab.sign(0, 1, product="camera")
    assert (lab.status_of(sensor), lab.status_of(camera)) == ("signing", "published")


def test_a_release_without_an_image_is_not_sealed(lab: Lab) -> None:
    release = lab.draft(publish.NewRelease(PRODUCT, "1.0.0"))
    with pytest.raises(Rejected, match="no artifact to sign"):
        lab.database.write(lambda conn: signing.seal(conn, release, ACTOR, lab.clock()))
    with pytest.raises(Rejected, match="there is no such release"):
        lab.database.write(lambda conn: signing.seal(conn, "rel_none", ACTOR, lab.clock()))


def test_sealing_again_changes_nothing(lab: Lab) -> None:
    release = lab.sealed("1.0.0")
    lab.sign(0)
    waiting = lab.pending()
    lab.database.write(lambda conn: signing.seal(conn, release, ACTOR, lab.clock()))
    assert lab.pending() == waiting
    lab.sign(1)
    lab.database.write(lambda conn: signing.seal(conn, release, ACTOR, lab.clock()))
    assert lab.status_of(release) == "published"


def test_a_file_that_expired_unsigned_is_sealed_anew(lab: Lab) -> None:
    release = lab.sealed("1.0.0")
    lab.sign(0)
    lab.clock.forward(days=RULE.life.days + 1)  # type: ignore[attr-defined] # the tests' clock
    with pytest.raises(Rejected, match="seal the release again"):
        lab.sign(1)
    lab.database.write(lambda conn: signing.seal(conn, release, ACTOR, lab.clock()))
    assert lab.sign(0)["signatures"] == 1
    lab.sign(1)
    device = lab.enroll()
    device.order(release)
    assert device.verify() is not None


def test_signed_names_are_the_releases_own(lab: Lab) -> None:
    """What the release keys vouch for is what was uploaded, described as it was created."""
    release = lab.released("1.0.0", b"the image", "sensor-v2", "sensor-v3", security_version=4)
    with lab.database.read() as conn:
        known = trustfiles.latest(conn, IMAGE, PRODUCT)
        stored = {a.device_type: a for a in releases.artifacts_of(conn, release)}
    assert known is not None
    signed = files.read(PRODUCT, known.body, Targets).signed.targets
    for hardware, artifact in stored.items():
        image = signed[f"sensor/1.0.0/{hardware}"]
        assert (image.length, image.hashes) == (artifact.size, {"sha256": artifact.sha256})
        assert image.unrecognized_fields["custom"] == {
            "version": "1.0.0",
            "hardware": [hardware],
            "security_version": 4,
            "kind": "image",
        }


# --- online signatures, made anew in time -----------------------------------------------------------------


def test_timestamps_are_signed_anew_at_half_of_their_life(lab: Lab) -> None:
    def versions() -> tuple[int, int]:
        with lab.database.read() as conn:
            found = trustfiles.versions(conn, IMAGE)
        return found["timestamp"], found["snapshot"]

    def freshen() -> bool:
        with lab.database.read() as conn:
            stale = signing.is_stale(conn, lab.clock())
        assert lab.database.write(lambda conn: signing.freshen(conn, lab.online, lab.clock())) is stale
        return stale

    assert versions() == (1, 1)
    lab.clock.forward(hours=11)  # type: ignore[attr-defined] # the tests' clock
    assert not freshen()
    lab.clock.forward(hours=2)  # type: ignore[attr-defined] # the tests' clock
    assert freshen()
    assert not freshen()
    assert versions() == (2, 1)
    lab.clock.forward(days=4)  # type: ignore[attr-defined] # the tests' clock
    assert freshen()
    assert versions() == (3, 2)
    lab.clock.forward(days=90)  # type: ignore[attr-defined] # the tests' clock
    assert freshen()
    assert lab.enroll().verify() is None


def test_orders_are_never_stored_as_files(lab: Lab) -> None:
    with lab.database.read() as conn:
        assert trustfiles.versions(conn, DIRECTOR) == {"root": 1}  # orders are never stored as files


# --- what the smallest device could not hold ----------------------------------------------------------


def large(lab: Lab) -> str:
    """A draft with more images than a role of 16 KB holds."""
    draft = lab.draft(publish.NewRelease(PRODUCT, "2.0.0"))
    for number in range(70):
        lab.upload(draft, b"the same image for all", f"{HARDWARE}-{number}")
    return draft


def test_a_role_too_large_for_a_microcontroller_is_refused_before_anybody_signs_it(lab: Lab) -> None:
    lab.released("1.0.0", b"one")
    draft = large(lab)
    with pytest.raises(Rejected, match=r"at most 16384, .* raise max_trust_file_bytes") as refused:
        lab.database.write(lambda conn: signing.seal(conn, draft, ACTOR, lab.clock()))
    assert (refused.value.code, refused.value.field) == ("trust_file_too_large", "role sensor")
    assert view(lab, draft)["status"] == "draft"
    with lab.database.read() as conn:
        assert trustfiles.pending(conn, PRODUCT) is None
    lab.sealed("1.1.0")  # what does fit is not held up
    lab.sign(0)
    lab.sign(1)
    assert images(lab) == {"sensor/1.0.0/sensor-v2", "sensor/1.1.0/sensor-v2"}


def test_a_fleet_without_microcontrollers_may_have_larger_roles(lab: Lab) -> None:
    draft = large(lab)
    lab.database.write(lambda conn: signing.seal(conn, draft, ACTOR, lab.clock(), 64 << 10))
    lab.sign(0)
    lab.sign(2)
    assert len(images(lab)) == 70


def test_no_role_is_larger_signed_than_was_reckoned(lab: Lab) -> None:
    lab.sealed("1.0.0")
    with lab.database.read() as conn:
        waiting = trustfiles.pending(conn, PRODUCT)
    assert waiting is not None
    for number in range(2):
        lab.sign(number)
    with lab.database.read() as conn:
        published = trustfiles.latest(conn, IMAGE, PRODUCT)
    assert published is not None
    assert len(waiting.body) + signing.SIGNED * 2 >= len(published.body) > len(waiting.body) + 400


def test_delegations_and_roots_that_are_too_large_are_refused(lab: Lab) -> None:
    """Some dozen products are as many as a microcontroller can read of."""
    with lab.database.read() as conn:
        held = ceremony.product_keys(signing.delegations(conn))
    for number in range(20):
        held[f"product-{number}"] = [keys.generate().public_key for _ in range(3)]
    body = files.sign(files.delegations(2, held, lab.clock()), [])

    def propose(most: int) -> dict[str, object]:
        return lab.database.write(
            lambda conn: gathering.propose(conn, lab.online, "image:targets", body, ACTOR, lab.clock(), most)
        )

    with pytest.raises(Rejected, match=r"image:targets is .* bytes with its signatures: at most 16384"):
        propose(16 << 10)
    assert propose(64 << 10)["role"] == "image:targets"
    with pytest.raises(Rejected, match="image_root is 17000 bytes"):
        lab.give(dict.fromkeys(("image_root", "director_root", "targets"), b" " * 17000))
