"""At the signer's desk: whatever the server says, a key signs only what people were shown."""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from skylift.core.errors import Rejected, SkyliftError, TrustError
from skylift.store import trustfiles
from skylift.testkit.trustlab import HARDWARE, PRODUCT, Lab, stranger
from skylift.trust import files
from skylift.trust.desk import Proposal, vouched
from skylift.trust.files import Targets
from skylift.trust.roles import IMAGE


def published(lab: Lab) -> bytes | None:
    with lab.database.read() as conn:
        found = trustfiles.latest(conn, IMAGE, PRODUCT)
    return found.body if found else None


def read(lab: Lab, pending: bytes | None = None, known: bytes | None = b"?") -> Proposal:
    root, targets = lab.desk.public("image.root"), lab.desk.public("image.targets")
    body = lab.pending().body if pending is None else pending
    before = published(lab) if known == b"?" else known
    return Proposal.read(PRODUCT, body, before, root, targets, lab.clock())


def altered(lab: Lab, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The pending file, as a lying server would hand it out."""
    found = json.loads(lab.pending().body)
    change(found["signed"])
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def test_the_signer_is_shown_what_the_signature_will_say(lab: Lab) -> None:
    lab.sealed("2.4.0", b"the bytes", "sensor-v2", "sensor-v3", security_version=3)
    shown = "\n".join(read(lab).lines())
    assert "sensor version 1" in shown
    for word in ("2.4.0", "sensor-v2", "sensor-v3", "security_version 3", "9 bytes"):
        assert word in shown
    assert hashlib.sha256(b"the bytes").hexdigest() in shown


def test_two_signatures_from_the_desk_publish(lab: Lab) -> None:
    release = lab.sealed("1.0.0")
    proposal = read(lab)
    for key in lab.release_keys()[:2]:
        body = proposal.sign(key)
        assert body["keyid"] == key.public_key.keyid
        lab.hand_in(key)
    assert lab.status_of(release) == "published"


def test_a_key_that_is_no_release_key_signs_nothing(lab: Lab) -> None:
    lab.sealed("1.0.0")
    with pytest.raises(Rejected, match="is not a release key"):
        read(lab).sign(stranger())
    with pytest.raises(Rejected, match="is not a release key"):
        read(lab).sign(lab.desk.signers("root", 3)[0])


def replace_image(signed: dict[str, Any]) -> None:
    signed["targets"]["sensor/1.0.0/sensor-v2"]["hashes"]["sha256"] = "00" * 32


def drop_image(signed: dict[str, Any]) -> None:
    del signed["targets"]["sensor/1.0.0/sensor-v2"]


def skip_version(signed: dict[str, Any]) -> None:
    signed["version"] = 9


def repeat_version(signed: dict[str, Any]) -> None:
    signed["version"] = 1


def live_for_ever(signed: dict[str, Any]) -> None:
    signed["expires"] = "2099-01-01T00:00:00Z"


def be_dead(signed: dict[str, Any]) -> None:
    signed["expires"] = "2026-01-01T00:00:00Z"


def delegate(signed: dict[str, Any]) -> None:
    signed["delegations"] = {"keys": {}, "roles": []}


def new_image(signed: dict[str, Any], path: str, **custom: Any) -> None:
    image = json.loads(json.dumps(signed["targets"]["sensor/1.1.0/sensor-v2"]))
    image["custom"] |= custom
    signed["targets"][path] = image


def foreign_path(signed: dict[str, Any]) -> None:
    new_image(signed, "camera/1.1.0/sensor-v2")


def other_hardware(signed: dict[str, Any]) -> None:
    """The path says sensor-v2, the part that devices believe says pump-v1."""
    signed["targets"]["sensor/1.1.0/sensor-v2"]["custom"]["hardware"] = ["pump-v1"]


def more_hardware(signed: dict[str, Any]) -> None:
    signed["targets"]["sensor/1.1.0/sensor-v2"]["custom"]["hardware"].append("pump-v1")


def other_version(signed: dict[str, Any]) -> None:
    signed["targets"]["sensor/1.1.0/sensor-v2"]["custom"]["version"] = "1.0.9"


def escape_codes(signed: dict[str, Any]) -> None:
    """Text that would paint over the terminal's lines."""
    new_image(signed, "sensor/1\x1b[2K/sensor-v2", version="1\x1b[2K")


def more_words(signed: dict[str, Any]) -> None:
    signed["targets"]["sensor/1.1.0/sensor-v2"]["custom"]["install_without_asking"] = True


def no_words(signed: dict[str, Any]) -> None:
    del signed["targets"]["sensor/1.1.0/sensor-v2"]["custom"]


def odd_security(signed: dict[str, Any]) -> None:
    signed["targets"]["sensor/1.1.0/sensor-v2"]["custom"]["security_version"] = True


LIES = (
    replace_image,
    drop_image,
    skip_version,
    repeat_version,
    live_for_ever,
    be_dead,
    delegate,
    foreign_path,
    other_hardware,
    more_hardware,
    other_version,
    escape_codes,
    more_words,
    no_words,
    odd_security,
)


def test_a_server_that_lies_gets_no_signature(lab: Lab) -> None:
    lab.released("1.0.0")
    lab.sealed("1.1.0")
    for lie in LIES:
        with pytest.raises(SkyliftError, match="will not be signed"):
            read(lab, altered(lab, lie))
    assert set(read(lab).added) == {"sensor/1.1.0/sensor-v2"}


def test_bytes_that_only_some_parsers_read_are_not_signed(lab: Lab) -> None:
    lab.sealed("1.0.0")
    pretty = json.dumps(json.loads(lab.pending().body), indent=1).encode()
    with pytest.raises(TrustError, match="byte rule"):
        read(lab, pretty)


def test_what_is_published_is_believed_only_with_the_keys_of_this_desk(lab: Lab) -> None:
    """A server that shows a published role of its own making gets no signature upon it."""
    lab.released("1.0.0")
    lab.sealed("1.1.0")
    known = files.read(PRODUCT, published(lab) or b"", Targets)
    fake = files.sign(known.signed, [stranger(), stranger()])
    with pytest.raises(TrustError, match="not signed by its release keys"):
        read(lab, known=fake)
    with pytest.raises(TrustError, match="1 comes next"):
        read(lab, known=None)  # hiding what is published does not help either


def test_a_desk_without_its_own_roots_signs_nothing(lab: Lab) -> None:
    lab.sealed("1.0.0")
    lab.desk.public("image.root").unlink()
    with pytest.raises(Rejected, match="holds no roots"):
        read(lab)


def test_a_desk_whose_delegations_were_tampered_with_signs_nothing(lab: Lab) -> None:
    lab.sealed("1.0.0")
    mine = [key.public_key for key in (stranger(), stranger(), stranger())]
    body = files.sign(files.delegations(2, {PRODUCT: mine}, lab.clock()), [stranger()])
    lab.desk.public("image.targets").write_bytes(body)
    with pytest.raises(TrustError, match="not signed by its targets keys"):
        read(lab)


def test_a_clock_a_little_behind_the_servers_signs(lab: Lab) -> None:
    lab.sealed("1.0.0")
    root, targets = lab.desk.public("image.root"), lab.desk.public("image.targets")
    early = lab.clock() - timedelta(hours=3)
    assert Proposal.read(PRODUCT, lab.pending().body, None, root, targets, early).added


def test_a_file_is_known_as_signed_or_not(lab: Lab) -> None:
    lab.released("1.0.0", b"the bytes")
    root, targets = lab.desk.public("image.root"), lab.desk.public("image.targets")
    body = published(lab) or b""
    digest = hashlib.sha256(b"the bytes").hexdigest()
    assert vouched(PRODUCT, body, digest, root, targets) == f"sensor/1.0.0/{HARDWARE}"
    assert vouched(PRODUCT, body, "00" * 32, root, targets) is None
    fake = files.sign(files.read(PRODUCT, body, Targets).signed, [stranger(), stranger()])
    with pytest.raises(TrustError):
        vouched(PRODUCT, fake, digest, root, targets)
