"""Releases, keys, devices, groups and deltas, as an operator handles them."""

import hashlib
import json
import random
from pathlib import Path

import pytest

from conftest import missing
from skylift.testkit import esp32
from skylift.testkit.image import Behaviour, build
from skylift.testkit.stage import Stage

from .conftest import MAX_IMAGE, Cli, Unit

ABOUT = ("--product", "sensor", "--device-type", "sensor-v2")


def create(cli: Cli, image: Path, version: str, *words: str) -> str:
    """A release that waits for its signatures; its id."""
    said = cli("release", "create", image, *ABOUT, "--version", version, *words, "--json")
    assert said.code == 0, said.err
    found: str = json.loads(said.out)["id"]
    return found


# --- releases -----------------------------------------------------------------------------------------


def test_a_half_signed_release_shows_it_and_cannot_be_deployed(cli: Cli, stage: Stage) -> None:
    made = create(cli, build(stage.home / "a.pyz", "6.0.0"), "6.0.0")
    key = stage.home / "desk" / "keys" / "release-sensor-1.pem"
    signed = cli("release", "sign", made, "--keys", "desk", "--key", key, "--yes")
    assert signed.code == 0, signed.err
    assert "1 of 2" in signed.err
    assert "adds sensor/6.0.0/sensor-v2" in signed.err  # shown before it was signed
    assert "1 of 2" in cli("release", "show", "sensor/6.0.0").out
    assert "1 of 2" in cli("trust", "status").err
    said = cli("deploy", "create", made, "--all")
    assert said.code == 1
    assert "not yet signed by enough keys" in said.err


def test_the_same_key_twice_is_still_one_signature(cli: Cli, stage: Stage) -> None:
    made = create(cli, build(stage.home / "b.pyz", "6.1.0"), "6.1.0")
    key = stage.home / "desk" / "keys" / "release-sensor-2.pem"
    for _ in range(2):
        said = cli("release", "sign", made, "--keys", "desk", "--key", key, "--yes", "--json")
        assert json.loads(said.out)["signatures"] == 1


def test_a_key_that_is_not_the_products_signs_nothing(cli: Cli, stage: Stage) -> None:
    made = create(cli, build(stage.home / "c.pyz", "6.2.0"), "6.2.0")
    said = cli(
        "release",
        "sign",
        made,
        "--keys",
        "desk",
        "--key",
        stage.home / "desk" / "keys" / "root-1.pem",
        "--yes",
    )
    assert said.code != 0
    assert "Traceback" not in said.err
    assert "is not a release key of sensor" in said.err


def test_a_wrong_passphrase_is_one_line(cli: Cli, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    made = create(cli, build(stage.home / "d.pyz", "6.3.0"), "6.3.0")
    monkeypatch.setenv("SKYLIFT_KEY_PASSPHRASE", "not this")
    key = stage.home / "desk" / "keys" / "release-sensor-1.pem"
    said = cli("release", "sign", made, "--keys", "desk", "--key", key, "--yes")
    assert said.code != 0
    assert "Traceback" not in said.err
    assert said.err.strip().splitlines()[-1].startswith("skylift: ")


def test_a_file_is_verified_against_what_was_signed_for_that_release(cli: Cli, stage: Stage) -> None:
    good, other = stage.home / "1.1.0.pyz", stage.home / "1.0.0.pyz"
    said = cli("release", "verify", "sensor/1.1.0", good, "--keys", "desk")
    assert said.code == 0, said.err
    assert "sensor/1.1.0/sensor-v2" in said.out
    assert cli("release", "verify", "sensor/1.1.0", other, "--keys", "desk").code == 3


def test_a_version_the_product_has_already_is_refused(cli: Cli, stage: Stage) -> None:
    said = cli("release", "create", stage.home / "1.0.0.pyz", *ABOUT, "--version", "1.1.0")
    assert said.code == 1
    assert "version is '1.1.0'" in said.err


def test_what_an_image_says_of_itself_need_not_be_said_again(cli: Cli, stage: Stage) -> None:
    image = stage.home / "chip.bin"
    image.write_bytes(esp32.image("6.6.0", size=4096, security_version=2))
    about = ("--product", "sensor", "--device-type", "chip-v1", "--json")
    found = json.loads(cli("release", "create", image, *about).out)
    assert (found["version"], found["security_version"]) == ("6.6.0", 2)
    assert found["artifacts"][0]["facts"]["chip"] == "ESP32-C3"
    image.write_bytes(esp32.image("6.6.1", size=4096))  # from the second on, its chip says for what it is
    found = json.loads(cli("release", "create", image, "--product", "sensor", "--json").out)
    assert (found["version"], found["artifacts"][0]["device_type"]) == ("6.6.1", "chip-v1")
    said = cli("release", "create", build(stage.home / "f.pyz", "6.7.0"), *ABOUT)
    assert said.code != 0
    assert "given by --version, for the image does not say it" in said.err


CHIP = esp32.image("6.8.0", size=4096)
OTHER_CHIP = esp32.image("6.8.0", size=4096, chip=esp32.CHIP_ESP32)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "an image has at least one byte"),
        (CHIP[:2000], "a corrupt image: segment 0 ends at"),
        (OTHER_CHIP, "had one for ESP32-C3 until now"),
        (bytes(MAX_IMAGE + 1), "larger than this server takes"),
    ],
    ids=["empty", "cut", "of another chip", "too large"],
)
def test_a_refused_image_leaves_no_release_and_the_same_again_with_a_good_one_makes_it(
    cli: Cli, stage: Stage, request: pytest.FixtureRequest, bad: bytes, why: str
) -> None:
    """Not even its bytes."""
    name = request.node.callspec.id.replace(" ", "-")
    about = ("--product", "sensor", "--device-type", f"refused-{name}", "--json")
    image = stage.home / f"{name}.bin"
    image.write_bytes(esp32.image("6.7.1", size=4096))
    assert cli("release", "create", image, *about, "--version", f"6.7.1-{name}").code == 0
    image.write_bytes(bad)
    create_ = ("release", "create", image, *about, "--version", f"6.8.0-{name}")
    said = cli(*create_)
    assert (said.code != 0, said.out) == (True, "")
    assert why in said.err
    assert cli("release", "show", f"sensor/6.8.0-{name}", "--json").code != 0
    assert hashlib.sha256(bad).hexdigest() not in kept(stage)
    image.write_bytes(CHIP)
    said = cli(*create_)
    assert said.code == 0, said.err
    assert json.loads(said.out)["status"] == "signing"
    # Again: that version is there, and stays as it is.
    assert cli(*create_).code == 1
    assert json.loads(cli("release", "show", f"sensor/6.8.0-{name}", "--json").out)["status"] == "signing"


def kept(stage: Stage) -> set[str]:
    """The names of all files that the server has of uploads."""
    return {path.name for path in (stage.home / "data" / "blobs").rglob("*") if path.is_file()}


def test_a_refused_bill_of_materials_leaves_no_release(cli: Cli, stage: Stage) -> None:
    image, bill = build(stage.home / "g.pyz", "6.9.0"), stage.home / "bill.json"
    create_ = ("release", "create", image, *ABOUT, "--version", "6.9.0", "--sbom", bill, "--json")
    bill.write_text('{"bomFormat": "CycloneDX", "specVersion": "0.1"}')
    said = cli(*create_)
    assert (said.code, said.out) == (2, "")
    assert "specVersion" in said.err
    assert cli("release", "show", "sensor/6.9.0", "--json").code != 0
    bill.write_text('{"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": []}')
    said = cli(*create_)
    assert said.code == 0, said.err
    made = json.loads(said.out)
    assert (made["status"], made["sbom"]["components"]) == ("signing", 0)


def test_notes_may_be_as_long_as_the_server_takes_them(cli: Cli, stage: Stage) -> None:
    """Longer than the head of a request may be; refused, there is no release of them either."""
    notes, image = "字" * 10_000, stage.home / "notes.pyz"
    create_ = ("release", "create", image, *ABOUT, "--version", "6.11.0", "--notes", notes, "--json")
    image.write_bytes(b"")
    said = cli(*create_)
    assert (said.code != 0, said.out) == (True, "")
    assert "at least one byte" in said.err
    build(image, "6.11.0")
    said = cli(*create_)
    assert said.code == 0, said.err
    made = json.loads(said.out)
    assert (made["status"], made["notes"]) == ("signing", notes)


def test_a_draft_is_deleted_and_its_version_is_free_again(cli: Cli, stage: Stage) -> None:
    image = build(stage.home / "h.pyz", "6.10.0")
    made = create(cli, image, "6.10.0", "--draft", "--notes", "first: grün & <neu>")
    assert json.loads(cli("release", "show", made, "--json").out)["notes"] == "first: grün & <neu>"
    assert cli("release", "delete", "sensor/6.10.0").code == 2  # not confirmed
    assert cli("release", "delete", "sensor/6.10.0", "--yes").code == 0
    assert cli("release", "show", made, "--json").code != 0
    made = create(cli, image, "6.10.0")
    said = cli("release", "delete", made, "--yes")
    assert said.code == 1
    assert "release is signing" in said.err


def test_a_release_for_two_device_types_is_filled_and_then_sealed(cli: Cli, stage: Stage) -> None:
    image = build(stage.home / "e.pyz", "6.5.0")
    made = create(cli, image, "6.5.0", "--draft")
    key = stage.home / "desk" / "keys" / "release-sensor-1.pem"
    assert cli("release", "sign", made, "--keys", "desk", "--key", key, "--yes").code == 1  # a draft
    said = cli("release", "upload", made, image, "--device-type", "sensor-v3", "--seal", "--json")
    found = json.loads(said.out)
    assert found["status"] == "signing"
    assert {artifact["device_type"] for artifact in found["artifacts"]} == {"sensor-v2", "sensor-v3"}


def test_a_release_nobody_knows_is_exit_code_1(cli: Cli) -> None:
    for name in ("rel_nowhere", "sensor/0.0.1", "nothing/1.0.0"):
        said = cli("release", "show", name)
        assert said.code in (1, 2), said
        assert "Traceback" not in said.err


# --- keys ---------------------------------------------------------------------------------------------


def test_the_ceremony_again_with_a_product_adds_that_product(cli: Cli) -> None:
    said = cli("trust", "init", "--product", "lamp", "--keys", "desk")
    assert said.code == 0, said.err
    assert cli("trust", "init", "--product", "lamp", "--keys", "desk").code == 0
    assert cli("release", "list", "--product", "lamp").code == 0
    roles = {
        role["role"]: role["version"] for role in json.loads(cli("trust", "status", "--json").out)["roles"]
    }
    assert roles["targets"] == 2


def test_private_keys_are_encrypted_and_nobody_elses_to_read(stage: Stage) -> None:
    keys = list((stage.home / "desk" / "keys").glob("*.pem"))
    assert len(keys) >= 9
    for key in keys:
        assert b"ENCRYPTED" in key.read_bytes()
        assert key.stat().st_mode & 0o077 == 0


def test_exporting_roots_from_a_desk_without_any_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    said = cli("trust", "export", "--linux", tmp_path / "roots", "--keys", tmp_path / "nothing")
    assert said.code == 2
    assert "skylift trust init" in said.err


# --- devices and groups -------------------------------------------------------------------------------


def test_a_device_is_listed_shown_and_its_story_told(cli: Cli, units: list[Unit]) -> None:
    one = units[0].name
    assert one in cli("device", "list", "--version", "1.0.0").out
    assert json.loads(cli("device", "show", one, "--json").out)["current_version"] == "1.0.0"
    kinds = {event["kind"] for event in json.loads(cli("device", "timeline", one, "--json").out)}
    assert "enrolled" in kinds


def test_a_decommissioned_device_is_let_in_nowhere(cli: Cli, units: list[Unit]) -> None:
    said = cli("device", "decommission", units[3].name)
    assert said.code == 2  # not confirmed
    assert cli("device", "decommission", units[3].name, "--yes").code == 0
    with pytest.raises(Exception, match="401"):
        units[3].check()


def test_a_group_lives_its_life(cli: Cli, units: list[Unit]) -> None:
    first, second = units[0].name, units[1].name
    assert cli("group", "create", "porch", "--device", first).code == 0
    assert cli("group", "add", "porch", second).code == 0
    assert json.loads(cli("group", "show", "porch", "--json").out)["size"] == 2
    assert cli("group", "remove", "porch", first).code == 0
    assert json.loads(cli("group", "show", "porch", "--json").out)["size"] == 1
    assert cli("group", "delete", "porch").code == 2
    assert cli("group", "delete", "porch", "--yes").code == 0
    assert cli("group", "show", "porch").code == 1


def test_a_live_group_counts_who_fits_now(cli: Cli, units: list[Unit]) -> None:
    query = f'device_id ~ "{units[0].name[:-2]}-*" and current_version = 1.0.0'
    assert cli("group", "create", "live", "--query", query).code == 0
    assert json.loads(cli("group", "show", "live", "--json").out)["size"] == 4
    units[0].version = "1.0.1"
    units[0].check()
    assert json.loads(cli("group", "show", "live", "--json").out)["size"] == 3
    assert cli("group", "delete", "live", "--yes").code == 0


def test_a_query_that_is_none_is_refused_with_its_reason(cli: Cli) -> None:
    said = cli("group", "create", "broken", "--query", "device_type = ")
    assert said.code == 2
    assert "query" in said.err


# --- deltas -------------------------------------------------------------------------------------------


def test_a_delta_is_made_inspected_and_applied(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    old, new, patch = stage.home / "1.0.0.pyz", stage.home / "1.1.0.pyz", tmp_path / "patch"
    made = json.loads(cli("delta", "make", old, new, patch, "--json").out)
    assert made["type"] == "delta"
    assert made["patch_size"] == patch.stat().st_size
    assert made["new_version_hash"].startswith(
        json.loads(cli("delta", "inspect", patch, "--json").out)["target_sha256"]
    )
    assert cli("delta", "apply", old, patch, tmp_path / "rebuilt").code == 0
    assert (tmp_path / "rebuilt").read_bytes() == new.read_bytes()


def test_a_delta_from_another_base_is_refused_and_writes_nothing(
    cli: Cli, stage: Stage, tmp_path: Path
) -> None:
    old, new, patch = stage.home / "1.0.0.pyz", stage.home / "1.1.0.pyz", tmp_path / "patch"
    cli("delta", "make", old, new, patch)
    said = cli("delta", "apply", new, patch, tmp_path / "rebuilt")
    assert said.code == 1
    assert "Traceback" not in said.err
    assert not (tmp_path / "rebuilt").exists()


def test_a_delta_that_is_not_worth_it_is_exit_code_3(cli: Cli, stage: Stage, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(bytes(range(256)) * 4)
    new = build(tmp_path / "new.pyz", "7.0.0", Behaviour.HEALTHY)
    said = cli("delta", "make", noise, new, tmp_path / "patch")
    assert said.code == 3
    assert not (tmp_path / "patch").exists()


def test_an_inspected_delta_with_its_base_shows_what_moved(cli: Cli, tmp_path: Path) -> None:
    from skylift.firmware import native

    if not native.available():
        missing("the C core of deltas (gcc)")
    old, new, patch = (tmp_path / name for name in ("old", "new", "patch"))
    words = random.Random(1).randbytes(64_000)
    old.write_bytes(words)
    new.write_bytes(words[:32_000] + random.Random(2).randbytes(16_000) + words[32_000:48_000])
    assert cli("delta", "make", old, new, patch, "--profile", "mcu-16k").code == 0
    told = json.loads(cli("delta", "inspect", patch, "--base", old, "--json").out)
    assert told["picture"] == "=" * 32 + "." * 16 + ">" * 16
    assert (told["profile"], told["memory"]) == ("mcu-16k", 16384)
    assert told["bytes"] == {"same": 32_000, "moved": 16_000, "opened": 0, "new": 16_000}


def test_other_tools_formats_are_made_and_applied_where_they_are_installed(cli: Cli, tmp_path: Path) -> None:
    old, new, patch, rebuilt = (tmp_path / name for name in ("old", "new", "patch", "rebuilt"))
    old.write_bytes(random.Random(1).randbytes(9000))
    new.write_bytes(old.read_bytes()[:4000] + b"put in" + old.read_bytes()[4000:])
    assert cli("delta", "make", old, new, patch, "--format", "hdiffpatch").code == 0
    assert patch.read_bytes().startswith(b"HDIFF")
    assert cli("delta", "apply", old, patch, rebuilt).code == 0
    assert rebuilt.read_bytes() == new.read_bytes()
    patch.write_bytes(patch.read_bytes()[:40])
    said = cli("delta", "apply", old, patch, tmp_path / "other")
    assert (said.code, "the patch does not apply" in said.err) == (1, True)
    assert not (tmp_path / "other").exists()
    assert list(tmp_path.glob("*.new")) == []


def test_a_format_whose_tool_is_missing_says_what_it_needs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skylift.firmware.peers.zstd._library", lambda: None)
    (tmp_path / "a").write_bytes(b"a")
    said = cli("delta", "make", tmp_path / "a", tmp_path / "a", tmp_path / "p", "--format", "zstd")
    assert said.code != 0
    assert "needs libzstd, which is not here" in said.err
    assert not (tmp_path / "p").exists()


def test_comparing_lays_every_format_side_by_side(cli: Cli, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(random.Random(1).randbytes(9000))
    new.write_bytes(old.read_bytes()[:4000] + b"put in" + old.read_bytes()[4000:])
    rows = json.loads(cli("delta", "compare", old, new, "--json").out)
    rows = rows if isinstance(rows, list) else rows["items"]
    assert "hdiffpatch" in {row["format"] for row in rows}
    assert all(row["same"] for row in rows)
    assert [row["size"] for row in rows] == sorted(row["size"] for row in rows)
