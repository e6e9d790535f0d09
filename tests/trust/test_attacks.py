"""Attackers, each with what he owns, against a device that verifies everything: nothing may be accepted.

A test says what the attacker holds and what he tries; the last lines say that the device goes on afterwards.
"""

import json
from dataclasses import replace

import pytest

from skylift.core.errors import TrustError, Unavailable
from skylift.core.lifecycle import Reason
from skylift.testkit.trustlab import (
    HARDWARE,
    PRODUCT,
    Lab,
    Line,
    forge_director,
    forge_image_repo,
    forge_order,
    stranger,
)
from skylift.trust import files
from skylift.trust.files import Targets
from skylift.trust.roles import DIRECTOR, IMAGE, target_path

DIGEST = "ab" * 32


def refused(line: Line, code: Reason, floor: int = 0) -> str:
    """The check is refused for this reason; the sentence."""
    with pytest.raises(TrustError) as caught:
        line.verify(floor=floor)
    assert caught.value.code == code, str(caught.value)
    return str(caught.value)


def evil_role(lab: Lab, version: int) -> Targets:
    """The product's role with one image more that nobody released."""
    path = target_path(PRODUCT, "6.6.6", HARDWARE)
    custom = {"version": "6.6.6", "hardware": [HARDWARE], "security_version": 9, "kind": "image"}
    return files.product_role(version, PRODUCT, {path: files.target(path, 9, DIGEST, custom)}, lab.clock())


def order_for(lab: Lab, role: Targets, line: Line, version: int = 7) -> None:
    """What an attacker with the director's key sends this device: an order for the role's image."""
    [image] = role.targets.values()
    said = {"image": image.unrecognized_fields["custom"], "device_id": line.trust.device_id}
    said |= {"deployment": "dep_evil", "attempt": 1, "mandatory": True}
    ordered = {image.path: files.target(image.path, image.length, image.hashes["sha256"], said)}
    made = files.order(version, line.trust.device_id, ordered, lab.clock())
    line.lies |= forge_director(lab, made, line.trust.device_id, lab.clock())


# --- new code needs two of three release keys ---------------------------------------------------------


def test_one_stolen_release_key_with_all_online_keys_installs_nothing(lab: Lab) -> None:
    lab.released("1.0.0")
    device = lab.enroll()
    role = evil_role(lab, 2)
    body = files.sign(role, [lab.release_keys()[0]])
    order_for(lab, role, device)
    device.lies |= forge_image_repo(lab, {PRODUCT: (2, body)}, 50, lab.clock())
    refused(device, Reason.SIGNATURE_INVALID)


def test_one_stolen_release_key_does_not_count_twice(lab: Lab) -> None:
    lab.released("1.0.0")
    device = lab.enroll()
    role = evil_role(lab, 2)
    once = json.loads(files.sign(role, [lab.release_keys()[0]]))
    other = lab.release_keys()[1].public_key.keyid
    once["signatures"].append({"keyid": other, "sig": once["signatures"][0]["sig"]})
    order_for(lab, role, device)
    body = json.dumps(once, separators=(",", ":")).encode()
    device.lies |= forge_image_repo(lab, {PRODUCT: (2, body)}, 50, lab.clock())
    refused(device, Reason.SIGNATURE_INVALID)


def test_the_online_keys_alone_sign_no_image(lab: Lab) -> None:
    lab.released("1.0.0")
    device = lab.enroll()
    role = evil_role(lab, 2)
    body = files.sign(role, [lab.online.image, lab.online.director])
    order_for(lab, role, device)
    device.lies |= forge_image_repo(lab, {PRODUCT: (2, body)}, 50, lab.clock())
    refused(device, Reason.SIGNATURE_INVALID)


def test_an_order_for_an_image_nobody_released_is_refused(lab: Lab) -> None:
    lab.released("1.0.0")
    device = lab.enroll()
    order_for(lab, evil_role(lab, 2), device)
    assert "vouches" in refused(device, Reason.SIGNATURE_INVALID)


def test_release_keys_of_one_product_do_not_sign_for_another(lab: Lab) -> None:
    lab.ceremony("sensor", "camera")
    lab.released("1.0.0")
    device = lab.enroll()
    role = evil_role(lab, 2)
    body = files.sign(role, lab.release_keys("camera"))
    order_for(lab, role, device)
    device.lies |= forge_image_repo(lab, {PRODUCT: (2, body)}, 50, lab.clock())
    refused(device, Reason.SIGNATURE_INVALID)


def test_a_products_role_says_nothing_outside_its_own_paths(lab: Lab) -> None:
    """Two stolen keys of `camera` do not vouch for `sensor/...`."""
    lab.ceremony("sensor", "camera")
    device = lab.enroll()
    role = evil_role(lab, 1)  # an image below sensor/, in camera's role
    body = files.sign(role, lab.release_keys("camera"))
    order_for(lab, role, device)
    device.lies |= forge_image_repo(lab, {"camera": (1, body)}, 50, lab.clock())
    with pytest.raises((TrustError, Unavailable)):
        device.verify()


def test_a_strangers_root_changes_nothing(lab: Lab) -> None:
    """The next root must be signed by the threshold of the one before."""
    lab.released("1.0.0")
    device = lab.enroll()
    own = stranger()
    everywhere = {role: [own.public_key] for role in ("root", "targets", "snapshot", "timestamp")}
    for repo in (IMAGE, DIRECTOR):
        made = files.root(2, everywhere, repo, lab.clock())
        for role in made.roles.values():
            role.threshold = 1
        device.lies[repo, "2.root.json"] = files.sign(made, [own])
    device.order(None)
    refused(device, Reason.SIGNATURE_INVALID)
    device.lies.clear()
    assert device.verify() is None


def test_one_root_key_makes_no_root(lab: Lab) -> None:
    device = lab.enroll()
    holders = lab.desk.signers("root", 3)
    own = stranger()
    keys = {"root": [h.public_key for h in holders]}
    keys |= {role: [own.public_key] for role in ("targets", "snapshot", "timestamp")}
    device.lies[DIRECTOR, "2.root.json"] = files.sign(files.root(2, keys, DIRECTOR, lab.clock()), holders[:1])
    refused(device, Reason.SIGNATURE_INVALID)


# --- orders -------------------------------------------------------------------------------------------


def test_the_order_of_another_device_is_refused_and_does_no_harm(lab: Lab) -> None:
    """Nothing needs to be stolen to replay another device's files; kept, their higher versions would make
    the device's own look like a rollback for ever."""
    release = lab.released("1.0.0")
    mine, other = lab.enroll("dev-a"), lab.enroll("dev-b")
    mine.order(release)
    for attempt in range(1, 6):
        other.order(release, attempt=attempt)
    assert mine.verify() is not None
    assert other.verify() is not None
    mine.lies = {name: body for name, body in other.recorded.items() if name[0] == DIRECTOR}
    assert "dev-b" in refused(mine, Reason.SIGNATURE_INVALID)
    mine.lies = {}
    assert mine.verify() is not None


@pytest.mark.parametrize("swapped", ["timestamp.json", "1.snapshot.json", "1.targets.json"])
def test_no_single_file_of_another_device_is_taken(lab: Lab, swapped: str) -> None:
    release = lab.released("1.0.0")
    mine, other = lab.enroll("dev-a"), lab.enroll("dev-b")
    for line in (mine, other):
        line.order(release)
    assert other.verify() is not None
    mine.lies = {(DIRECTOR, swapped): other.recorded[DIRECTOR, swapped]}
    refused(mine, Reason.SIGNATURE_INVALID)
    mine.lies = {}
    assert mine.verify() is not None


def test_an_order_with_another_devices_name_inside_is_refused(lab: Lab) -> None:
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.lies = forge_order(lab, "dev-1", lab.target(release), 4, lab.clock(), device_id="dev-2")
    refused(device, Reason.SIGNATURE_INVALID)


def test_an_order_for_two_images_is_refused(lab: Lab) -> None:
    release = lab.released("1.0.0", b"", HARDWARE, "camera-v1")
    device = lab.enroll()
    both = {}
    for hardware in (HARDWARE, "camera-v1"):
        target = lab.target(release, hardware)
        both[target.path] = files.target(target.path, target.length, target.sha256, {})
    order = files.order(4, "dev-1", both, lab.clock())
    device.lies = forge_director(lab, order, "dev-1", lab.clock())
    assert "more than one" in refused(device, Reason.SIGNATURE_INVALID)


def test_a_director_that_delegates_is_refused(lab: Lab) -> None:
    release = lab.released("1.0.0")
    device = lab.enroll()
    target = lab.target(release)
    order = files.order(4, "dev-1", {}, lab.clock())
    order.targets[target.path] = files.target(target.path, target.length, target.sha256, {})
    keys = {PRODUCT: [key.public_key for key in lab.release_keys()]}
    order.delegations = files.delegations(1, keys, lab.clock()).delegations
    device.lies = forge_director(lab, order, "dev-1", lab.clock())
    assert "delegates" in refused(device, Reason.SIGNATURE_INVALID)


@pytest.mark.parametrize(
    "change",
    [{"length": 1}, {"sha256": DIGEST}],
    ids=["another length", "another digest"],
)
def test_an_order_for_altered_bytes_is_refused(lab: Lab, change: dict[str, object]) -> None:
    """With the director's key stolen: right path, other bytes."""
    release = lab.released("1.0.0")
    device = lab.enroll()
    target = replace(lab.target(release), **change)  # type: ignore[arg-type] # the fields above
    device.lies = forge_order(lab, "dev-1", target, 4, lab.clock())
    refused(device, Reason.HASH_MISMATCH)


def test_an_order_that_describes_the_image_otherwise_is_refused(lab: Lab) -> None:
    release = lab.released("1.0.0", security_version=1)
    device = lab.enroll()
    target = lab.target(release)
    target = replace(target, custom={**target.custom, "security_version": 99})
    device.lies = forge_order(lab, "dev-1", target, 4, lab.clock())
    refused(device, Reason.HASH_MISMATCH)


def test_an_image_for_other_hardware_is_refused(lab: Lab) -> None:
    release = lab.released("1.0.0", b"", "camera-v1")
    device = lab.enroll()
    device.lies = forge_order(lab, "dev-1", lab.target(release, "camera-v1"), 4, lab.clock())
    refused(device, Reason.WRONG_HARDWARE)


@pytest.mark.parametrize("hardware", ["sensor-v2-pro", None, 7, {"sensor-v2": 1}])
def test_hardware_that_is_not_a_list_fits_nothing(lab: Lab, hardware: object) -> None:
    """`sensor-v2` is part of the text `sensor-v2-pro`, and a key of the object; neither is a list."""
    path = target_path(PRODUCT, "1.0.0", HARDWARE)
    custom = {"version": "1.0.0", "hardware": hardware, "security_version": 0, "kind": "image"}
    role = files.product_role(1, PRODUCT, {path: files.target(path, 9, DIGEST, custom)}, lab.clock())
    device = lab.enroll()
    order_for(lab, role, device)
    body = files.sign(role, lab.release_keys()[:2])
    device.lies |= forge_image_repo(lab, {PRODUCT: (1, body)}, 50, lab.clock())
    refused(device, Reason.WRONG_HARDWARE)


def test_an_image_below_the_security_floor_is_refused(lab: Lab) -> None:
    old = lab.released("1.0.0", security_version=1)
    device = lab.enroll()
    device.order(old)
    refused(device, Reason.BELOW_SECURITY_FLOOR, floor=2)
    found = device.verify(floor=1)
    assert found is not None
    assert found.security_version == 1


def test_an_older_release_at_the_floor_is_allowed(lab: Lab) -> None:
    """Versions need not grow: an operator may roll back."""
    old = lab.released("1.0.0", security_version=1)
    new = lab.released("1.1.0", security_version=1)
    device = lab.enroll()
    for release, version in ((new, "1.1.0"), (old, "1.0.0")):
        device.order(release)
        found = device.verify(floor=1)
        assert found is not None
        assert found.version == version


# --- time and order of files ---------------------------------------------------------------------------


def test_an_older_order_is_a_rollback(lab: Lab) -> None:
    first, second = lab.released("1.0.0"), lab.released("1.1.0")
    device = lab.enroll()
    device.order(first)
    assert device.verify() is not None
    replay = {name: body for name, body in device.recorded.items() if name[0] == DIRECTOR}
    device.order(second)
    assert device.verify() is not None
    device.lies = replay
    refused(device, Reason.METADATA_ROLLBACK)
    device.lies = {}
    assert device.verify() is not None


def test_an_older_image_repository_is_a_rollback(lab: Lab) -> None:
    first = lab.released("1.0.0")
    device = lab.enroll()
    device.order(first)
    assert device.verify() is not None
    replay = {name: body for name, body in device.recorded.items() if name[0] == IMAGE}
    second = lab.released("1.1.0")
    device.order(second)
    assert device.verify() is not None
    device.lies = replay
    refused(device, Reason.METADATA_ROLLBACK)


def test_a_frozen_director_is_noticed_within_a_day(lab: Lab) -> None:
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.order(release)
    assert device.verify() is not None
    device.lies = dict(device.recorded)
    lab.clock.forward(hours=23)  # type: ignore[attr-defined] # the tests' clock
    assert device.verify() is not None
    lab.clock.forward(hours=2)  # type: ignore[attr-defined] # the tests' clock
    refused(device, Reason.METADATA_EXPIRED)
    device.lies = {}
    assert device.verify() is not None


def test_a_frozen_image_repository_is_noticed_within_a_day(lab: Lab) -> None:
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.order(release)
    assert device.verify() is not None
    device.lies = {name: body for name, body in device.recorded.items() if name[0] == IMAGE}
    lab.clock.forward(hours=25)  # type: ignore[attr-defined] # the tests' clock
    refused(device, Reason.METADATA_EXPIRED)


def test_a_clock_set_back_revives_nothing_that_has_expired(lab: Lab) -> None:
    """The newest signed time counts, whatever the device's own clock says."""
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.order(release)
    then = lab.clock()
    assert device.verify() is not None
    old = dict(device.recorded)
    lab.clock.forward(days=3)  # type: ignore[attr-defined] # the tests' clock
    assert device.verify() is not None
    (device.trust.directory / DIRECTOR / "timestamp.json").unlink()  # and its memory of versions
    device.lies = old
    with pytest.raises(TrustError) as caught:
        device.verify(now=then)
    assert caught.value.code == Reason.METADATA_EXPIRED


def test_files_of_two_times_are_not_mixed(lab: Lab) -> None:
    """An old product role under the newest snapshot; an old snapshot under the newest timestamp."""
    lab.released("1.0.0")
    second = lab.released("1.1.0")
    for number, (name, old, code) in enumerate(
        (
            (f"2.{PRODUCT}.json", f"1.{PRODUCT}.json", Reason.METADATA_ROLLBACK),
            ("3.snapshot.json", "2.snapshot.json", Reason.SIGNATURE_INVALID),  # the timestamp has its digest
        )
    ):
        device = lab.enroll(f"dev-{number}")
        device.order(second)
        device.lies = {(IMAGE, name): device.honest(IMAGE, old)}
        refused(device, code)
        device.lies = {}
        assert device.verify() is not None


def test_the_director_and_the_image_repository_do_not_stand_in_for_each_other(lab: Lab) -> None:
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.order(release)
    assert device.verify() is not None
    image = {name: body for (repo, name), body in device.recorded.items() if repo == IMAGE}
    device.lies = {(DIRECTOR, name): body for name, body in image.items()}
    refused(device, Reason.SIGNATURE_INVALID)


def test_a_time_in_the_far_future_is_forgotten_with_the_stolen_key(lab: Lab) -> None:
    """Fast-forward: the director's key, stolen, says it is 2099; a new director root recovers the device."""
    release = lab.released("1.0.0")
    device = lab.enroll()
    far = lab.clock().replace(year=2099)
    device.lies = forge_order(lab, "dev-1", None, 900, far)
    assert device.verify() is None
    device.lies = {}
    device.order(release)
    with pytest.raises(TrustError):
        device.verify()

    lab.rotate_director()
    found = device.verify()
    assert found is not None
    assert found.version == "1.0.0"
