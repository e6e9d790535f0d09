"""Hostile bytes in the place of files: altered, endless, crowded, withheld; nothing is accepted or breaks."""

import json
from dataclasses import replace

import pytest

from skylift.core.errors import Unavailable
from skylift.core.lifecycle import Reason
from skylift.testkit.trustlab import (
    PRODUCT,
    Lab,
    Line,
    forge_order,
)
from skylift.trust import files
from skylift.trust.roles import DIRECTOR, IMAGE

from .test_attacks import refused


@pytest.mark.parametrize("repo", [DIRECTOR, IMAGE])
def test_one_altered_byte_anywhere_is_refused(lab: Lab, repo: str) -> None:
    release = lab.released("1.0.0")
    honest = lab.enroll()
    honest.order(release)
    assert honest.verify() is not None
    recorded = dict(honest.recorded)
    for number, (name, body) in enumerate(item for item in recorded.items() if item[0][0] == repo):
        at = body.index(b'"expires"') + 12  # a digit of the year
        broken = body[:at] + (b"9" if body[at : at + 1] != b"9" else b"8") + body[at + 1 :]
        fresh = Line(
            lab, honest.device_pk, replace(honest.trust, directory=lab.directory / f"f{number}{repo}")
        )
        fresh.lies = {name: broken}
        refused(fresh, Reason.SIGNATURE_INVALID)
        fresh.lies = {}
        assert fresh.verify() is not None


GARBAGE = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"signed": 7, "signatures": []}',
    b'{"signed": {"_type": "timestamp"}, "signatures": "x"}',
    b"\xff" * 100,
    b"[" * 15_000,
    b'{"signed":' * 1_500,
)


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "1.targets.json", "2.root.json"])
@pytest.mark.parametrize("repo", [DIRECTOR, IMAGE])
def test_garbage_in_any_file_is_refused_and_does_no_harm(lab: Lab, repo: str, name: str) -> None:
    release = lab.released("1.0.0")
    if (repo, name) == (DIRECTOR, "2.snapshot.json"):
        name = "1.snapshot.json"
    for number, body in enumerate(GARBAGE):
        device = lab.enroll(f"dev-{number}")
        device.order(release)
        device.lies = {(repo, name): body}
        refused(device, Reason.SIGNATURE_INVALID)
        device.lies = {}
        assert device.verify() is not None


def test_endless_data_is_cut_off(lab: Lab) -> None:
    release = lab.released("1.0.0")
    for number, name in enumerate(["timestamp.json", "2.root.json", "1.snapshot.json", "1.targets.json"]):
        device = lab.enroll(f"dev-{number}")
        device.order(release)
        device.lies = {(DIRECTOR, name): b" " * (1 << 20)}
        refused(device, Reason.SIGNATURE_INVALID)
        assert max(limit for _, _, limit in device.asked) <= 512 << 10


def test_a_stolen_online_key_does_not_raise_the_limits(lab: Lab) -> None:
    """Signed metadata names the lengths of other files; with the key stolen it may name any."""
    device = lab.enroll()
    snapshot = files.snapshot(DIRECTOR, 1, {"targets": 1}, lab.clock(), "dev-1")
    body = files.sign(snapshot, [lab.online.director])
    stamp = files.timestamp(DIRECTOR, 1, 1, body, lab.clock(), "dev-1")
    stamp.snapshot_meta.length = 10 << 30
    device.lies = {
        (DIRECTOR, "timestamp.json"): files.sign(stamp, [lab.online.director]),
        (DIRECTOR, "1.snapshot.json"): body + b" " * (1 << 20),
    }
    refused(device, Reason.SIGNATURE_INVALID)
    assert max(limit for _, _, limit in device.asked) <= 512 << 10


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "sensor/../camera/1/x", "/sensor/1.0.0/sensor-v2", "sensor/1.0.0/sensor-v2/"]
)
def test_a_path_with_tricks_is_vouched_for_by_nobody(lab: Lab, path: str) -> None:
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.lies = forge_order(lab, "dev-1", replace(lab.target(release), path=path), 4, lab.clock())
    refused(device, Reason.SIGNATURE_INVALID)
    names = {p.name for p in device.trust.directory.rglob("*")}
    assert names <= {
        *(DIRECTOR, IMAGE, "root_history", "root.json", "1.root.json", "newest.json"),
        *("timestamp.json", "snapshot.json", "targets.json", f"{PRODUCT}.json"),
    }


def test_a_crowd_of_signatures_is_refused_in_time(lab: Lab) -> None:
    """Only the keys that a role names are tried, however many signatures there are."""
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.order(release)
    many = [{"keyid": f"{n:064x}", "sig": "30" * 70} for n in range(60)]
    honest = json.loads(device.honest(DIRECTOR, "timestamp.json"))
    honest["signatures"] = many
    device.lies = {(DIRECTOR, "timestamp.json"): json.dumps(honest, separators=(",", ":")).encode()}
    refused(device, Reason.SIGNATURE_INVALID)


def test_withheld_files_are_no_verdict_on_an_order(lab: Lab) -> None:
    """A file that is missing or a line that is cut is trouble on the way, not a bad signature: try later."""
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.order(release)
    device.cut = True
    with pytest.raises(Unavailable):
        device.verify()
    device.cut = False
    assert device.verify() is not None


def test_a_slow_day_is_no_attack(lab: Lab) -> None:
    """A device that was away for two months, with no release meanwhile, just goes on."""
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.order(release)
    assert device.verify() is not None
    lab.clock.forward(days=60)  # type: ignore[attr-defined] # the tests' clock
    assert device.verify() is not None
