"""Compact verification: the vectors of conformance/trust, and that full verification judges them alike."""

import base64
import importlib.util
import json
import re
import sys
import zlib
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from skylift.core.errors import TrustError
from skylift.testkit import forge
from skylift.trust import bounds, compact, files, plain, verify
from skylift.trust.plain import Refused
from skylift.trust.roles import DIRECTOR

FOLDER = Path(__file__).resolve().parents[2] / "conformance" / "trust"
VECTORS: dict[str, Any] = json.loads((FOLDER / "vectors.json").read_text())
CASES: list[dict[str, Any]] = VECTORS["cases"]
FILES = {name: zlib.decompress(base64.b64decode(body)) for name, body in VECTORS["files"].items()}
named = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


def device(case: dict[str, Any]) -> compact.Device:
    own = dict(case["device"])
    for name in ("image_root", "director_root", "delegations"):
        own[name] = FILES[own[name]] if own[name] else None
    return compact.Device(VECTORS["device_id"], VECTORS["hardware"], VECTORS["product"], **own)


def judged(own: compact.Device, case: dict[str, Any]) -> compact.Image | None:
    for root in case["roots"]:
        own.take_root(root["repository"], FILES[root["file"]])
    if case["delegations"]:
        own.take_delegations(FILES[case["delegations"]], case["now"])
    role = FILES[case["role"]] if case["role"] else None

    def ask(leaves: list[str], since: int, size: int) -> bytes:
        assert (len(leaves), since) == (4, own.log_size)
        return FILES[case["proofs"]] if case["proofs"] else b""

    given = (FILES[case["order"]], role, case["nonce"], case["now"])
    return own.decide(*given, ask if "proofs" in case else None)


@named
def test_the_compact_verifier_passes_every_vector(case: dict[str, Any]) -> None:
    own = device(case)
    if "refuse" in case:
        pinned = own.log_size, own.log_root
        before = own.order_version, own.role_version
        with pytest.raises(Refused) as refused:
            judged(own, case)
        assert case["refuse"] == {"reason": refused.value.reason, "rule": refused.value.rule}
        assert (own.log_size, own.log_root) == pinned
        forgotten = {"order_version": own.order_version, "role_version": own.role_version}
        assert (own.order_version, own.role_version) == before or case["roots"] or case["delegations"], (
            forgotten
        )
        return
    found = judged(own, case)
    if case.get("nothing"):
        assert found is None
    else:
        assert found is not None
        assert vars(found) == case["install"]
    assert {name: getattr(own, name) for name in case["after"]} == case["after"]


def test_the_vectors_are_what_the_script_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # its cases stand beside it
    spec = importlib.util.spec_from_file_location("trust_vectors", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    assert made.written() == VECTORS


def test_every_rule_is_broken_by_a_vector() -> None:
    """Read from the source: each sentence with which the verifier refuses."""
    broken = {case["refuse"]["rule"] for case in CASES if "refuse" in case}
    source = "".join(Path(str(module.__file__)).read_text() for module in (compact, plain))
    rules = set(re.findall(r'Refused\(\w+, "([^"]+)"\)', source))
    assert len(rules) > 30
    assert rules <= broken, rules - broken


# --- full verification of the same cases ----------------------------------------------------------------

KEYS = {each.public_key.keyid: each for each in [*forge.FRESH, forge.IMAGE_ONLINE, forge.DIRECTOR_ONLINE]}
World = dict[tuple[str, str], bytes]


def said(body: bytes | None, field: str, instead: Any) -> Any:
    """What a file says, where it can be read."""
    try:
        found = json.loads(body or b"")["signed"][field]
    except (ValueError, KeyError, TypeError, RecursionError):
        return instead
    return found if isinstance(found, int) and found > 0 else instead


def repository(repo: str, roots: dict[str, bytes], roles: dict[str, tuple[int, bytes]], number: int) -> World:
    """These files, and the snapshot and timestamp that the root's online key signs around them."""
    said_by = [json.loads(body)["signed"] for body in roots.values()]
    newest = [signed["roles"] for signed in said_by if "roles" in signed][-1]
    signer = [KEYS[newest["timestamp"]["keyids"][0]]]
    whose = forge.DEVICE if repo == DIRECTOR else None
    versions = {role: version for role, (version, _) in roles.items()}
    snapshot = files.sign(files.snapshot(repo, number, versions, forge.NOW, whose), signer)
    stamp = files.timestamp(repo, number, number, snapshot, forge.NOW, whose)
    made = {(repo, name): body for name, body in roots.items()}
    made |= {(repo, f"{version}.{role}.json"): body for role, (version, body) in roles.items()}
    return made | {
        (repo, f"{number}.snapshot.json"): snapshot,
        (repo, "timestamp.json"): files.sign(stamp, signer),
    }


def fetched(world: World) -> verify.Fetch:
    def get(repo: str, name: str, at_most: int) -> bytes:
        if (repo, name) not in world:
            raise FileNotFoundError(name)
        return world[repo, name]

    return get


def seen_before(own: dict[str, Any]) -> World:
    """What a device with these versions has verified already."""
    role = forge.role(own["role_version"] or 1)
    order = forge.order(own["order_version"] or 1, forge.ordered(forge.image()))
    roots = {"image": FILES[own["image_root"]], "director": FILES[own["director_root"]]}
    held = FILES[own["delegations"]]
    listed = {"targets": (said(held, "version", 1), held), forge.PRODUCT: (own["role_version"] or 1, role)}
    return repository("image", {"1.root.json": roots["image"]}, listed, 1) | repository(
        DIRECTOR, {"1.root.json": roots["director"]}, {"targets": (own["order_version"] or 1, order)}, 1
    )


def served(case: dict[str, Any]) -> World:
    """This case as a server's two repositories."""
    own = case["device"]
    roots = {repo: {"1.root.json": FILES[own[f"{repo}_root"]]} for repo in ("image", "director")}
    for root in case["roots"]:
        number = len(roots[root["repository"]]) + 1
        roots[root["repository"]][f"{number}.root.json"] = FILES[root["file"]]
    delegations, order = FILES[case["delegations"] or own["delegations"]], FILES[case["order"]]
    listed = {"targets": (said(delegations, "version", 1), delegations)}
    if case["role"]:
        listed[forge.PRODUCT] = (said(FILES[case["role"]], "version", 2), FILES[case["role"]])
    ordered = {"targets": (said(order, "version", 3), order)}
    return repository("image", roots["image"], listed, 2) | repository(
        "director", roots["director"], ordered, 2
    )


FULL = [case for case in CASES if "full" not in case]


@pytest.mark.parametrize("case", FULL, ids=[case["name"] for case in FULL])
def test_full_verification_judges_alike(case: dict[str, Any], tmp_path: Path) -> None:
    own = case["device"]
    trust = verify.DeviceTrust(
        tmp_path,
        FILES[own["image_root"]],
        FILES[own["director_root"]],
        forge.DEVICE,
        forge.HARDWARE,
        {"image": forge.PRODUCT, "config": forge.PRODUCT},
    )
    if own["order_version"] or own["role_version"] or own["delegation_version"] > 1:
        assert trust.verify(fetched(seen_before(own)), forge.NOW, 0, forge.NOW) is not None
    check = partial(trust.verify, fetched(served(case)), forge.NOW, own["floor"], forge.NOW)
    if "refuse" in case:
        with pytest.raises(TrustError) as refused:
            check()
        assert refused.value.code == case["refuse"]["reason"], refused.value
        return
    found = check()
    assert (asdict(found) if found else None) == case.get("install")


def test_both_verifications_have_the_same_bounds() -> None:
    assert (compact.ROOTS_MAX, plain.DEPTH, plain.DIGITS) == (bounds.ROOTS, bounds.DEPTH, bounds.DIGITS)
    assert (compact.SIGNATURES, compact.KEYS) == (bounds.SIGNATURES, bounds.KEYS_OF_A_ROLE)
