"""The byte rule, on every file the server ever publishes: a microcontroller verifies a slice of the file."""

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from skylift.core.deadlines import Deadlines
from skylift.core.ids import check_name, check_version
from skylift.engine import repos, signing
from skylift.engine.withdraw import withdraw
from skylift.store import devices
from skylift.testkit.trustlab import ACTOR, Lab, Line
from skylift.trust import files
from skylift.trust.files import Metadata
from skylift.trust.roles import DIRECTOR, IMAGE, target_path


def slice_of(body: bytes) -> bytes:
    """What a microcontroller does: find `"signed":`, take the rest but one brace, undo the one escape."""
    head, _, rest = body.partition(b'],"signed":')
    assert head.startswith(b'{"signatures":[')
    assert rest.endswith(b"}}")
    return rest[:-1].replace(b"\\n", b"\n")


def everything(lab: Lab) -> dict[tuple[str, str], bytes]:
    """A server's life: two products, releases of both kinds, orders given and withdrawn, with a nonce and
    without; new roots, a role renewed, a release taken back, other online keys."""
    lab.ceremony("sensor", "camera")
    first = lab.released("1.0.0", b"", "sensor-v2", "sensor-v3")
    lab.released("1.0.0", b"", "cam_v1", product="camera", security_version=7)
    config = lab.released("cfg-2", b'{"interval": 5}', kind="config")
    device = lab.enroll("dev_1.a-B")
    for release in (first, config, None, first):
        device.order(release)
        device.verify()
    lab.rotate_director()
    lab.clock.forward(hours=13)  # type: ignore[attr-defined] # the tests' clock
    device.verify()
    fresh = repos.order(lab.database, lab.online, _row(lab, device), "order.json", lab.clock(), "ab" * 16)
    deadlines, now = Deadlines(), lab.clock()
    lab.database.write(lambda conn: withdraw(conn, config, "too often", ACTOR, now, deadlines))
    lab.sign(0, 1)
    lab.database.write(lambda conn: signing.renew(conn, "camera", ACTOR, now))
    lab.sign(1, 2, product="camera")
    lab.rotate_online()
    device.verify()
    return lab.published() | device.recorded | {(DIRECTOR, "order.json"): fresh}


def _row(lab: Lab, line: Line) -> devices.Device:
    with lab.database.read() as conn:
        found = devices.by_pk(conn, line.device_pk)
    assert found is not None
    return found


def test_every_published_file_follows_the_byte_rule(lab: Lab) -> None:
    found = everything(lab)
    assert len(found) > 20
    for name, body in found.items():
        metadata: Metadata[files.Root] = Metadata.from_bytes(body)
        assert slice_of(body) == metadata.signed_bytes, name
        assert files.follows_byte_rule(body, metadata.signed_bytes), name
        assert body.isascii()
        assert len(body) <= 16 << 10, name


def test_every_published_file_verifies_without_json_or_tuf(lab: Lab) -> None:
    """The slice, a SHA-256 and a key are enough."""
    keys = {}
    found = everything(lab)
    for name, body in found.items():
        signed = json.loads(body)["signed"]
        tables = [signed.get("keys", {}), (signed.get("delegations") or {}).get("keys", {})]
        for table in tables:
            keys |= {keyid: key["keyval"]["public"] for keyid, key in table.items()}
        assert "keyval" not in json.dumps(signed) or name[1].endswith(("root.json", ".targets.json"))
    for name, body in found.items():
        signatures = json.loads(body)["signatures"]
        assert signatures, name
        for signature in signatures:
            key = load_pem_public_key(keys[signature["keyid"]].encode())
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(bytes.fromhex(signature["sig"]), slice_of(body), ec.ECDSA(SHA256()))


def test_numbers_are_whole_and_strings_are_plain(lab: Lab) -> None:
    def walk(value: object) -> None:
        assert not isinstance(value, float)
        if isinstance(value, str):
            assert '"' not in value
            assert "\\" not in value
        if isinstance(value, dict):
            walk([*value.keys(), *value.values()])
        if isinstance(value, list):
            for part in value:
                walk(part)

    for body in everything(lab).values():
        walk(json.loads(body)["signed"])


def test_the_same_state_gives_the_same_bytes(lab: Lab) -> None:
    release = lab.released("1.0.0")
    device = lab.enroll()
    device.order(release)
    names = [(DIRECTOR, name) for name in ("timestamp.json", "1.snapshot.json", "1.targets.json")]
    first = {name: device.honest(*name) for name in names}
    lab.clock.forward(hours=11)  # type: ignore[attr-defined] # the tests' clock
    assert {name: device.honest(*name) for name in names} == first
    assert device.honest(IMAGE, "timestamp.json") == device.honest(IMAGE, "timestamp.json")


@pytest.mark.parametrize("bad", ['a"b', "a\\b", "ü", "a\x00b", "\u202e"])
def test_a_file_that_breaks_the_rule_is_never_written(lab: Lab, bad: str) -> None:
    custom = {"version": bad}
    role = files.product_role(1, "sensor", {"p": files.target("p", 1, "00" * 32, custom)}, lab.clock())
    with pytest.raises(AssertionError, match="byte rule"):
        files.sign(role, [])


@settings(deadline=None, max_examples=200)
@given(
    product=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    version=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", fullmatch=True),
    hardware=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    security=st.integers(0, 2**31 - 1),
    length=st.integers(1, 1 << 40),
)
def test_whatever_names_are_allowed_keep_the_rule(
    product: str, version: str, hardware: str, security: int, length: int
) -> None:
    """The alphabets of names and versions, and the byte rule, fit together."""
    path = target_path(
        check_name("product", product), check_version("version", version), check_name("hardware", hardware)
    )
    digest = hashlib.sha256(path.encode()).hexdigest()
    custom = {"version": version, "hardware": [hardware], "security_version": security, "kind": "image"}
    image = files.target(path, length, digest, custom)
    now = files.datetime.fromisoformat("2026-11-23T12:00:00Z")
    files.sign(files.product_role(1, product, {path: image}, now), [])
    files.sign(files.order(1, hardware, {path: image}, now), [])
