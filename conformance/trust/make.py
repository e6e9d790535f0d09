"""Makes vectors.json of the cases: a device, what it is served, what comes of it."""

import base64
import json
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from cases import Case, cases

from skylift.testkit.forge import DEVICE, HARDWARE, PRODUCT, delegations, root
from skylift.trust.roles import DIRECTOR, IMAGE

WHERE = Path(__file__).with_name("vectors.json")
STANDARD = {"image_root": root(IMAGE), "director_root": root(DIRECTOR), "delegations": delegations()}


def stored(case: Case) -> dict[str, Any]:
    """What the device of this case has in its flash."""
    own: dict[str, Any] = {**STANDARD, **case.device}
    own.setdefault("delegation_version", 1 if own["delegations"] else 0)
    for name in ("order_version", "role_version", "floor"):
        own.setdefault(name, 0)
    return own


def written() -> dict[str, Any]:
    """What vectors.json holds: every file once, by the beginning of its digest."""
    kept: dict[str, str] = {}

    def keep(body: bytes | None) -> str | None:
        if body is None:
            return None
        name = sha256(body).hexdigest()[:12]
        kept[name] = base64.b64encode(zlib.compress(body, 9)).decode()
        return name

    told = []
    for case in cases():
        own = stored(case)
        one: dict[str, Any] = {
            "name": case.name,
            "device": {k: keep(v) if isinstance(v, bytes) else v for k, v in own.items()},
            "nonce": case.nonce,
            "now": None if case.now is None else int(case.now.timestamp()),
            "roots": [{"repository": repo, "file": keep(body)} for repo, body in case.roots],
            "delegations": keep(case.delegations),
            "order": keep(case.order),
            "role": keep(case.role),
            **outcome(case, own),
        }
        if case.full != "agrees":
            one["full"] = case.full
        if case.log:
            one["proofs"] = keep(case.proofs)
        if case.pins is not None:
            pinned = {"log_size": len(case.pins.entries), "log_root": case.pins.root()}
            one["after"] = {**one["after"], **pinned}
        told.append(one)
    fixed = {"device_id": DEVICE, "hardware": HARDWARE, "product": PRODUCT}
    return {**fixed, "files": dict(sorted(kept.items())), "cases": told}


def outcome(case: Case, own: Mapping[str, Any]) -> dict[str, Any]:
    if case.refuse is not None:
        return {"refuse": {"reason": case.refuse[0], "rule": case.refuse[1]}}
    told = json.loads(case.order)["signed"]
    after = {
        "order_version": told["version"],
        "role_version": own["role_version"]
        if case.nothing or not case.role
        else json.loads(case.role)["signed"]["version"],
    }
    if case.nothing:
        return {"nothing": True, "after": after}
    [(path, found)] = told["targets"].items()
    custom = found["custom"]["image"]
    wanted = {
        "path": path,
        "length": found["length"],
        "sha256": found["hashes"]["sha256"],
        "version": custom["version"],
        "security_version": custom["security_version"],
        "kind": custom["kind"],
        **{name: found["custom"][name] for name in ("deployment", "attempt", "mandatory")},
    }
    return {"install": wanted, "after": after}


if __name__ == "__main__":
    WHERE.write_text(json.dumps(written(), indent=1) + "\n")
