"""Compact verification: the vectors of conformance/trust, and that full verification judges them alike."""

import base64
import importlib.util
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from skylift.trust import compact, plain
from skylift.trust.plain import Refused

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
    return own.decide(FILES[case["order"]], role, case["nonce"], case["now"])


@named
def test_the_compact_verifier_passes_every_vector(case: dict[str, Any]) -> None:
    own = device(case)
    if "refuse" in case:
        before = own.order_version, own.role_version
        with pytest.raises(Refused) as refused:
            judged(own, case)
        assert case["refuse"] == {"reason": refused.value.reason, "rule": refused.value.rule}
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
    assert {"order_version": own.order_version, "role_version": own.role_version} == case["after"]


def test_the_vectors_are_what_the_script_makes() -> None:
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
