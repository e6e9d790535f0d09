"""The cases of the vectors: what a device has, what it is served, and for every rule one that breaks it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from skylift.testkit.forge import (
    DEVICE,
    DIGEST,
    DIRECTOR_ONLINE,
    FRESH,
    HARDWARE,
    IMAGE_ONLINE,
    LENGTH,
    NONCE,
    NOW,
    OTHERS,
    PRODUCT,
    RELEASE,
    ROOTS,
    STRANGER,
    TARGETS,
    Log,
    aliased,
    delegations,
    der,
    edited,
    elsewhere,
    image,
    longer,
    numbers,
    off_the_curve,
    order,
    ordered,
    padded,
    plain_json,
    published,
    resigned,
    role,
    root,
    spoiled,
    twice,
)
from skylift.trust import files
from skylift.trust.log import order_entry
from skylift.trust.p256 import N
from skylift.trust.roles import DIRECTOR, IMAGE

GOOD_ORDER = order(3, ordered(image()))


@dataclass(frozen=True)
class Case:
    """`device`: what it has stored. `refuse`: (reason, rule), or None. `full`: whether full verification
    judges the same; where it cannot (it has no nonce and larger bounds) the sentence says why."""

    name: str
    order: bytes = GOOD_ORDER
    role: bytes | None = role()
    roots: tuple[tuple[str, bytes], ...] = ()
    delegations: bytes | None = None
    device: Mapping[str, Any] = field(default_factory=dict)
    nonce: str | None = NONCE
    now: datetime | None = NOW
    refuse: tuple[str, str] | None = None
    nothing: bool = False
    full: str = "agrees"
    proofs: bytes | None = None
    pins: Log | None = None  # expected: the log that is pinned afterwards
    log: bool = False  # whether it is for verifiers that know the log


S, E, R = "signature_invalid", "metadata_expired", "metadata_rollback"
OLD, LATER = NOW - timedelta(days=400), NOW + timedelta(days=1)


def good() -> list[Case]:
    three = order(3, ordered(image(), mandatory=True, attempt=4))
    high = resigned(GOOD_ORDER, lambda sig: der(numbers(sig)[0], N - numbers(sig)[1]))
    return [
        Case("an order, and the role that vouches for it"),
        Case("nothing is ordered", order(3), None, nothing=True),
        Case("no clock, a nonce", now=None),
        Case("no clock, and everything has expired: the nonce says it is fresh",
             order(3, ordered(image()), now=OLD), role(now=OLD), now=None, full="has a clock"),
        Case("no nonce, a clock", order(3, ordered(image()), nonce=None), nonce=None),
        Case("mandatory, the fourth attempt", three),
        Case("higher versions than stored", order(9, ordered(image())), role(8)),
        Case("the versions that are stored", device={"order_version": 3, "role_version": 2}),
        Case("an older release at the floor", order(3, ordered(image("1.0.0", security_version=1))),
             device={"floor": 1}),
        Case("exactly the floor", device={"floor": 2}),
        Case("three signatures of two", role=role(signers=RELEASE)),
        Case("one of three signatures is wrong",
             role=resigned(role(signers=RELEASE), lambda sig: der(1, 1), 0)),
        Case("a stranger signed too", role=role(signers=[STRANGER, *RELEASE[1:]])),
        Case("a signature with the higher s", high),
        Case("one more hardware", order(3, ordered(image(hardware=["sensor-v1", HARDWARE]))),
             role(images=[image(hardware=["sensor-v1", HARDWARE])])),
        Case("a configuration", order(3, ordered(image("cfg-1", kind="config"))),
             role(images=[image("cfg-1", kind="config")])),
        Case("sixteen levels", edited(
             GOOD_ORDER, lambda s: s.update(zz=json.loads("[" * 14 + "]" * 14)), DIRECTOR_ONLINE)),
        Case("the largest order", padded(GOOD_ORDER, 4096, DIRECTOR_ONLINE)),
        Case("the largest role", role=padded(role(), 16384, *RELEASE[:2])),
    ]  # fmt: skip


def updates() -> list[Case]:
    """New roots and delegations."""
    moved = delegations(2, release=FRESH[:3])
    image_2 = root(IMAGE, 2, now=LATER)
    online_2 = root(DIRECTOR, 2, targets=FRESH[:1], snapshot=FRESH[:1], timestamp=FRESH[:1])
    holders_2 = root(IMAGE, 2, [*ROOTS[:2], FRESH[0]], root=[ROOTS[1], ROOTS[2], FRESH[0]])
    targets_2 = root(IMAGE, 2, targets=FRESH[:3])
    chain = [root(IMAGE, 2, [ROOTS[0], ROOTS[1], FRESH[0]], root=[ROOTS[0], ROOTS[1], FRESH[0]]),
             root(IMAGE, 3, [ROOTS[0], FRESH[0], FRESH[1]], root=[ROOTS[0], FRESH[0], FRESH[1]]),
             root(IMAGE, 4, [FRESH[0], FRESH[1], FRESH[2]], root=FRESH[:3])]  # fmt: skip
    by_fresh = order(1, ordered(image()), signers=[FRESH[0]])
    return [
        Case("renewed roots", roots=((IMAGE, image_2), (DIRECTOR, root(DIRECTOR, 2)))),
        Case("a root holder was replaced", roots=((IMAGE, holders_2),)),
        Case("every root holder was replaced, one after the other",
             roots=tuple((IMAGE, body) for body in chain)),
        Case("new online keys: the old order's version is forgotten", by_fresh, roots=((DIRECTOR, online_2),),
             device={"order_version": 1_000_000}),
        Case("new release keys: the old role's version is forgotten", role=role(2, FRESH[:2]),
             delegations=moved, device={"role_version": 1_000_000}, full="its snapshot remembers"),
        Case("one new release key: the role's version is kept", role=role(2, [RELEASE[0], FRESH[0]]),
             delegations=delegations(2, release=[*RELEASE[:2], FRESH[0]]), device={"role_version": 3},
             refuse=(R, "role: version")),
        Case("a revoked release key", delegations=moved, refuse=(S, "role: signatures")),
        Case("new targets keys, and delegations by them", roots=((IMAGE, targets_2),),
             delegations=delegations(2, FRESH[:2])),
        Case("new targets keys: their delegations may begin again", roots=((IMAGE, targets_2),),
             delegations=delegations(1, FRESH[:2]), device={"delegation_version": 7},
             full="its snapshot remembers"),
        Case("new targets keys: the old delegations do not count", roots=((IMAGE, targets_2),),
             refuse=(S, "role: delegations")),
        Case("the director's root as the image's next", roots=((IMAGE, root(DIRECTOR, 2)),),
             refuse=(S, "root: of this repository")),
        Case("the image's root as the director's next", roots=((DIRECTOR, root(IMAGE, 2)),),
             refuse=(S, "root: of this repository")),
        Case("a root that does not say whose it is", roots=((IMAGE, edited(
             root(IMAGE, 2), lambda signed: signed.pop("repository"), *ROOTS[:2])),),
             refuse=(S, "root: of this repository")),
        Case("a root by one holder", roots=((IMAGE, root(IMAGE, 2, ROOTS[:1])),),
             refuse=(S, "root: signatures")),
        Case("a root by the new holders only",
             roots=((IMAGE, root(IMAGE, 2, FRESH[:2], root=FRESH[:3])),), refuse=(S, "root: signatures")),
        Case("a root by the old holders only",
             roots=((IMAGE, root(IMAGE, 2, root=FRESH[:3])),), refuse=(S, "root: signatures")),
        Case("a root that skips a version", roots=((IMAGE, root(IMAGE, 3)),),
             refuse=(R, "root: the next version"), full="is never given one: it asks for the next"),
        Case("a root of the version that is stored", roots=((IMAGE, root(IMAGE, 1)),),
             refuse=(R, "root: the next version"), full="is never given one: it asks for the next"),
        Case("a next root that has expired, and a clock", roots=((IMAGE, root(IMAGE, 2, now=OLD)),),
             refuse=(E, "root: expired")),
        Case("a next root that has expired, and no clock", roots=((IMAGE, root(IMAGE, 2, now=OLD)),),
             now=None, full="has a clock"),
        Case("delegations as a root", roots=((IMAGE, edited(
             delegations(2), lambda signed: None, *ROOTS[:2])),), refuse=(S, "type: root")),
        Case("a root above 16 KB", roots=((IMAGE, padded(root(IMAGE, 2), 16385, *ROOTS[:2])),),
             refuse=(S, "form: size"), full="takes larger ones"),
        Case("one key of a root under two names", roots=((IMAGE, twice(root(IMAGE, 2), *ROOTS[:2])),),
             refuse=(S, "keys: each once")),
        Case("a threshold of nobody", roots=((IMAGE, edited(
             root(IMAGE, 2), lambda s: s["roles"]["targets"].update(threshold=0), *ROOTS[:2])),),
             refuse=(S, "keys: threshold")),
        Case("a threshold above the keys", roots=((IMAGE, edited(
             root(IMAGE, 2), lambda s: s["roles"]["targets"].update(threshold=4), *ROOTS[:2])),),
             refuse=(S, "keys: threshold")),
        Case("a key that is none", roots=((IMAGE, edited(root(IMAGE, 2), spoiled, *ROOTS[:2])),),
             refuse=(S, "keys: P-256"), full="skips keys that it cannot read"),
        Case("a key that is no point of the curve", roots=((IMAGE, edited(
             root(IMAGE, 2), off_the_curve, *ROOTS[:2])),),
             refuse=(S, "keys: P-256"), full="skips keys that it cannot read"),
        Case("delegations by one targets key", delegations=delegations(2, TARGETS[:1]),
             refuse=(S, "delegations: signatures")),
        Case("delegations by the release keys", delegations=delegations(2, RELEASE[:2]),
             refuse=(S, "delegations: signatures")),
        Case("older delegations than stored", delegations=delegations(1),
             device={"delegations": delegations(5), "delegation_version": 5},
             refuse=(R, "delegations: version")),
        Case("delegations that have expired, and a clock", delegations=delegations(2, now=OLD),
             refuse=(E, "delegations: expired")),
        Case("delegations without this product", delegations=delegations(2, product="boiler"),
             refuse=(S, "delegations: this product")),
        Case("delegations that give this product other paths", delegations=edited(
             delegations(2), elsewhere, *TARGETS[:2]),
             refuse=(S, "delegations: this product's paths")),
        Case("delegations above 16 KB", delegations=padded(delegations(2), 16385, *TARGETS[:2]),
             refuse=(S, "form: size"), full="takes larger ones"),
        Case("no delegations yet", device={"delegations": None}, refuse=(S, "role: delegations"),
             full="fetches them"),
        Case("the first delegations", device={"delegations": None}, delegations=delegations()),
        Case("a stored root has expired, and there is a clock",
             device={"director_root": root(DIRECTOR, now=OLD)}, refuse=(E, "root: expired")),
    ]  # fmt: skip


def bad_orders() -> list[Case]:
    other = ordered(image("5.0.0", "camera"))
    two = order(3, ordered(image()), ordered(image("1.0.0", security_version=1)))
    delegating = edited(
        GOOD_ORDER, lambda s: s.update(delegations={"keys": {}, "roles": []}), DIRECTOR_ONLINE
    )
    r, s = numbers(json.loads(GOOD_ORDER)["signatures"][0]["sig"])

    def wrong(name: str, sig: str) -> Case:
        return Case(
            f"an order's signature: {name}",
            resigned(GOOD_ORDER, lambda _: sig),
            refuse=(S, "order: signatures"),
        )

    return [
        Case("an order by a stranger", order(3, ordered(image()), signers=[STRANGER]),
             refuse=(S, "order: signatures")),
        Case("an order by the image's online key", order(3, ordered(image()), signers=[IMAGE_ONLINE]),
             refuse=(S, "order: signatures")),
        Case("an order without a signature", order(3, ordered(image()), signers=[]),
             refuse=(S, "order: signatures")),
        Case("an order with one bit changed", GOOD_ORDER.replace(b'"length":9', b'"length":8'),
             refuse=(S, "order: signatures")),
        Case("an order whose key signs twice", edited(
             GOOD_ORDER, lambda signed: None, DIRECTOR_ONLINE, DIRECTOR_ONLINE),
             refuse=(S, "form: a key signs once")),
        Case("a snapshot as an order", files.sign(files.snapshot(
             DIRECTOR, 3, {"targets": 3}, NOW, DEVICE), [DIRECTOR_ONLINE]), refuse=(S, "type: targets")),
        Case("an order of another format", edited(
             GOOD_ORDER, lambda signed: signed.update(spec_version="2.0.0"), DIRECTOR_ONLINE),
             refuse=(S, "type: targets")),
        Case("an older order than stored", device={"order_version": 4}, refuse=(R, "order: version")),
        Case("another device's order", order(3, ordered(image(), device_id="dev-2"), device="dev-2"),
             refuse=(S, "order: this device")),
        Case("an order that does not say whose it is", edited(
             GOOD_ORDER, lambda signed: signed.pop("device_id"), DIRECTOR_ONLINE),
             refuse=(S, "order: this device")),
        Case("another check's nonce", order(3, ordered(image()), nonce="ff" * 16),
             refuse=(R, "order: nonce"), full="has timestamps, no nonce"),
        Case("no nonce in the order, one was sent", order(3, ordered(image()), nonce=None),
             refuse=(R, "order: nonce"), full="has timestamps, no nonce"),
        Case("another check's nonce while nothing is ordered", order(3, nonce="ff" * 16), None,
             refuse=(R, "order: nonce"), full="has timestamps, no nonce"),
        Case("an order that has expired, and a clock", order(3, ordered(image()), now=OLD),
             refuse=(E, "order: expired")),
        Case("an order that expires this second", order(3, ordered(image()), now=NOW - timedelta(days=3)),
             refuse=(E, "order: expired")),
        Case("neither nonce nor clock", order(3, ordered(image()), nonce=None), nonce=None, now=None,
             refuse=(E, "order: a nonce or a clock"), full="has a clock"),
        Case("two images", two, refuse=(S, "order: at most one image")),
        Case("an order that delegates", delegating, refuse=(S, "order: no delegations")),
        Case("an order above 4 KB", padded(GOOD_ORDER, 4097, DIRECTOR_ONLINE), refuse=(S, "form: size"),
             full="takes larger ones"),
        Case("an image of another product", order(3, other), refuse=(S, "match: this product")),
        Case("an image of another product, in this one's role", order(3, other),
             role(images=[image("5.0.0", "camera")]), refuse=(S, "match: this product")),
        Case("a path that climbs out of the product", order(3, ordered(image("../camera"))),
             role(images=[image("../camera")]), refuse=(S, "match: this product")),
        wrong("of r = 0", der(0, s)), wrong("of s = 0", der(r, 0)), wrong("of r = n", der(N, s)),
        wrong("of s = n", der(r, N)), wrong("of r + n", der(r + N, s)), wrong("r and s exchanged", der(s, r)),
        wrong("empty", ""), wrong("of one byte", "30"), wrong("cut", der(r, s)[:-2]),
        wrong("with a byte behind it", der(r, s) + "00"),
        wrong("of two zeros", "3006020100020100"), wrong("of ones", "3006020101020101"),
        wrong("r not in its shortest form", longer(der(r, s))),
        wrong("not hexadecimal", "zz" * 70), wrong("of negative r", "30060201ff020101"),
    ]  # fmt: skip


def bad_roles() -> list[Case]:
    evil = image(version="1.1.0")
    other_bytes = files.target(evil.path, LENGTH, "ee" * 32, evil.unrecognized_fields["custom"])
    longer_ = files.target(evil.path, LENGTH + 1, DIGEST, evil.unrecognized_fields["custom"])
    return [
        Case("a role by one release key", role=role(signers=RELEASE[:1]), refuse=(S, "role: signatures")),
        Case("a role by one release key and every online key",
             role=role(signers=[RELEASE[0], IMAGE_ONLINE, DIRECTOR_ONLINE]), refuse=(S, "role: signatures")),
        Case("a role by another product's keys", role=role(signers=OTHERS[:2]),
             refuse=(S, "role: signatures")),
        Case("a role by one key that signs twice", role=edited(
             role(), lambda signed: None, RELEASE[0], RELEASE[0]), refuse=(S, "form: a key signs once")),
        Case("a role by the same key under two names", role=aliased(role(signers=RELEASE[:1])),
             refuse=(S, "role: signatures")),
        Case("a role by the targets keys", role=role(signers=TARGETS[:2]), refuse=(S, "role: signatures")),
        Case("a role with one bit changed", role=role().replace(b'"length":9', b'"length":8'),
             refuse=(S, "role: signatures")),
        Case("an older role than stored", device={"role_version": 3}, refuse=(R, "role: version")),
        Case("a role that has expired, and a clock", role=role(now=OLD), refuse=(E, "role: expired")),
        Case("a snapshot as a role", role=files.sign(
             files.snapshot(IMAGE, 2, {PRODUCT: 2}, NOW), RELEASE[:2]), refuse=(S, "type: targets")),
        Case("no role", role=None, refuse=(S, "form: JSON"), full="fetches it"),
        Case("a role above 16 KB", role=padded(role(), 16385, *RELEASE[:2]), refuse=(S, "form: size"),
             full="takes larger ones"),
        Case("nobody vouches for the image", role=role(images=[image("1.0.0")]),
             refuse=(S, "match: vouched for")),
        Case("another digest than vouched for", order(3, ordered(other_bytes)),
             refuse=("hash_mismatch", "match: the same image")),
        Case("another length than vouched for", order(3, ordered(longer_)),
             refuse=("hash_mismatch", "match: the same image")),
        Case("another security_version than vouched for", order(3, ordered(image(security_version=9))),
             refuse=("hash_mismatch", "match: the same image")),
        Case("other hardware than vouched for", order(3, ordered(image(hardware=["sensor-v9"]))),
             refuse=("hash_mismatch", "match: the same image")),
        Case("an image in another device's words", order(3, ordered(image(), device_id="dev-2")),
             refuse=(S, "match: this device")),
        Case("other hardware", order(3, ordered(image(hardware=["camera-v1"]))),
             role(images=[image(hardware=["camera-v1"])]), refuse=("wrong_hardware", "match: hardware")),
        Case("no hardware", order(3, ordered(image(hardware=[]))), role(images=[image(hardware=[])]),
             refuse=("wrong_hardware", "match: hardware")),
        Case("hardware that only begins alike", order(3, ordered(image(hardware=["sensor-v22"]))),
             role(images=[image(hardware=["sensor-v22"])]), refuse=("wrong_hardware", "match: hardware")),
        Case("below the floor", device={"floor": 3}, refuse=("below_security_floor", "match: floor")),
    ]  # fmt: skip


def bad_forms() -> list[Case]:
    """What is not written as our files are, each signed by the right key where that is possible."""

    def signed(text: bytes) -> bytes:
        sig = DIRECTOR_ONLINE.sign(text.replace(b"\\n", b"\n"))
        return b'{"signatures":[{"keyid":"%b","sig":"%b"}],"signed":%b}' % (
            sig.keyid.encode(), sig.signature.encode(), text)  # fmt: skip

    kind, begin = b'"_type":"targets",', b'{"signatures":['
    text = GOOD_ORDER[GOOD_ORDER.index(b'"signed":') + 9 : -1]
    deep = text.replace(b'"version":3}', b'"version":3,"zz":' + b"[" * 15 + b"]" * 15 + b"}")
    forms: dict[str, tuple[bytes, str]] = {
        "spaces": (signed(text.replace(b":3}", b": 3}")), "form: number"),
        "a newline at the end": (GOOD_ORDER + b"\n", "form: the end"),
        "names in another order": (signed(text.replace(kind, b"")[:-1] + b',"_type":"targets"}'),
                                   "form: names in order, each once"),
        "a name twice": (signed(text.replace(b'"version":3', b'"version":3,"version":9')),
                         "form: names in order, each once"),
        "a fraction": (signed(text.replace(b'"version":3', b'"version":3.0')), "form: JSON"),
        "an exponent": (signed(text.replace(b'"version":3', b'"version":3e0')), "form: JSON"),
        "a negative number": (signed(text.replace(b'"version":3', b'"version":-3')), "form: number"),
        "a leading zero": (signed(text.replace(b'"version":3', b'"version":03')), "form: number"),
        "a number of 16 digits": (signed(text.replace(b'"version":3', b'"version":1000000000000000')),
                                  "form: number"),
        "a version of 0": (signed(text.replace(b'"version":3', b'"version":0')), "form: version"),
        "a version in quotes": (signed(text.replace(b'"version":3', b'"version":"3"')), "form: kind"),
        "an escape": (signed(text.replace(b'"dev-1"', b'"dev-\\u0031"')), "form: escape"),
        "a look-alike": (signed(text.replace(b'"dev-1"', '"d\u0435v-1"'.encode())), "form: text"),
        "a control character": (signed(text.replace(b'"dev-1"', b'"dev-1\x00"')), "form: text"),
        "seventeen levels": (signed(deep), "form: depth"),
        "a bomb of brackets": (b'{"signatures":[' + b"[" * 4000, "form: depth"),
        "no JSON": (b"<html>", "form: JSON"),
        "nothing": (b"", "form: JSON"),
        "cut": (GOOD_ORDER[:-20], "form: text"),
        "only the signed part": (text, "form: JSON"),
        "more behind the signed part": (GOOD_ORDER[:-1] + b',"signed2":1}', "form: the end"),
        "another slice before": (GOOD_ORDER.replace(begin, begin + b'{"keyid":"a","sig":[],"signed":{}},'),
                                 "form: kind"),
        "65 signatures": (begin + b",".join(b'{"keyid":"%02x","sig":"30"}' % n for n in range(65))
                          + b'],"signed":' + text + b"}", "form: count"),
        "an expiry that is no time": (signed(text.replace(b"Z\"", b"z\"")), "form: expiry"),
    }  # fmt: skip
    return [Case(f"an order's form: {name}", body, refuse=(S, rule)) for name, (body, rule) in forms.items()]


# --- the log ---------------------------------------------------------------------------------------


def logs() -> list[Case]:
    """An order that shows the log; what it must have, and what it must go on from."""
    entries = [published(repo, "root", 1, root(repo)) for repo in (IMAGE, DIRECTOR)]
    entries += [published(IMAGE, PRODUCT, 2, role()), b'{"entry":"other"}']
    told = order_entry("dep_1", image().path, LENGTH, DIGEST, False)
    needed = [told, entries[2], entries[0], entries[1]]
    whole = Log((*entries, told, b'{"entry":"later"}'))
    shown = order(3, ordered(image()), log=whole)
    first = {"log_size": 3, "log_root": whole.root(3)}
    fork = {"log_size": 3, "log_root": Log((*entries[:2], b"{}")).root()}
    good, since = plain_json(whole.proofs(needed)), plain_json(whole.proofs(needed, 3))
    mandatory = order(3, ordered(image(), mandatory=True), log=whole)
    many = Log((*(b"%d" % n for n in range(1000)), *entries, told))
    longest = order(3, ordered(image()), log=many)
    same = {"log_size": len(whole.entries), "log_root": whole.root()}
    missing = [Log(tuple(e for e in whole.entries if e != gone)) for gone in needed]
    without = ("the order", "the role", "the image root", "the director root")

    def bad(name: str, proofs: bytes | None, rule: str, **more: Any) -> Case:
        return Case(name, **{"order": shown, "refuse": (S, rule), **more}, proofs=proofs, log=True,
                    full="asks the log itself")  # fmt: skip

    def altered(change: Callable[[dict[str, Any]], object]) -> bytes:
        found = json.loads(since)
        change(found)
        return plain_json(found)

    return [
        Case("an order that shows the log, to a device that keeps none", shown),
        Case("the first log that is seen is pinned", shown, proofs=good, pins=whole, log=True),
        Case("a log that goes on", shown, device=first, proofs=since, pins=whole, log=True),
        Case("the log that is pinned", shown, device=same, proofs=plain_json(whole.proofs(needed, 6)),
             pins=whole, log=True),
        Case("a log of a thousand", longest, device={"log_size": 700, "log_root": many.root(700)},
             proofs=plain_json(many.proofs(needed, 700)), pins=many, log=True),
        bad("an order without the log, and one is pinned", None, "log: shown and proved", order=GOOD_ORDER,
            device=first),
        bad("a log that shrank", since, "", refuse=(R, "log: size"),
            device={"log_size": 7, "log_root": "00" * 32}),
        bad("a log that forks", since, "log: goes on", device=fork),
        bad("a log that goes on by another's proof", good, "log: goes on", device=first),
        *[bad(f"a log without {name}", plain_json(log.proofs(needed)), "log: has it",
              order=order(3, ordered(image()), log=log))
          for name, log in zip(without, missing, strict=True)],
        bad("an order that is mandatory, and logged as not", since, "log: has it", order=mandatory,
            device=first),
        bad("a place that is another's", altered(lambda f: f["inclusions"][0].update(index=5)),
            "log: has it", device=first),
        bad("a proof that is missing", altered(lambda f: f["inclusions"].pop()), "log: proofs", device=first),
        bad("a proof of 64 steps", altered(lambda f: f["consistency"].extend(["00" * 32] * 64)),
            "log: proofs", device=first),
        bad("a step that is no digest", altered(lambda f: f["consistency"].append("zz")), "log: proofs",
            device=first),
        bad("proofs above 16 KB", since + b" " * 16384, "form: size", device=first),
        bad("proofs and more", since + b" ", "form: the end", device=first),
        bad("no proofs", b"", "form: number", device=first),
    ]  # fmt: skip


def cases() -> list[Case]:
    return [*good(), *updates(), *bad_orders(), *bad_roles(), *bad_forms(), *logs()]
