"""What the server's answer must prove before it is an order: both repositories vouch for it, for this device,
and the transparency log has it. The answer's own words are hints only."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from skylift.agent.boot.file import KINDS
from skylift.agent.config import Config, roots
from skylift.agent.journal import Order, Products
from skylift.agent.transport import Transport
from skylift.core.errors import TrustError
from skylift.core.lifecycle import Reason


def vouched(config: Config, products: Products, transport: Transport, floor: int, now: datetime) -> Any:
    """What this device is ordered to install (`trust.verify`); None: nothing. Raises `TrustError`."""
    from skylift.trust.verify import DeviceTrust  # tuf weighs a second of start-up: only with an order

    image_root, director_root = roots(config)
    trust = DeviceTrust(
        config.state_dir / "trust",
        image_root,
        director_root,
        config.device_id,
        config.device_type,
        dict.fromkeys(KINDS, config.product) if config.product else products.read(),
    )
    found = trust.verify(transport.metadata, now, floor, config.build_time)
    if found is not None:
        _demand_log(config, transport, found, {"image": image_root, "director": director_root})
    return found


def _demand_log(config: Config, transport: Transport, found: Any, factory: dict[str, bytes]) -> None:
    """What is about to be installed stands in the transparency log, which goes on from what was seen."""
    from skylift.trust.log import DeviceLog, entries_of

    folder = config.state_dir / "trust"
    log = DeviceLog(folder, config.roots / "log.json", config.require_log)
    newest = (folder / "director" / "root.json").read_bytes()
    log.check(entries_of(folder, found, factory), transport.ask, newest)


def order(found: Any, answer: dict[str, Any], slot: Callable[[str], str]) -> Order:
    """The order, with the answer's hints about the way; `slot` names the idle one of a kind."""
    if found.kind not in KINDS:
        raise TrustError(Reason.INSTALL_ERROR, f"this agent cannot install a {found.kind!r}")
    delta, chain, packed = (answer.get(name) for name in ("delta", "chain", "packed"))
    hinted = answer.get("sha256") == found.sha256 and isinstance(answer.get("url"), str)
    return Order(
        deployment=found.deployment,
        attempt=found.attempt,
        kind=found.kind,
        version=found.version,
        sha256=found.sha256,
        length=found.length,
        security_version=found.security_version,
        slot=slot(found.kind),
        url=answer["url"] if hinted else f"/api/blobs/{found.sha256}",
        delta=delta if isinstance(delta, dict) else None,
        chain=chain if isinstance(chain, list) else None,
        packed=packed if isinstance(packed, dict) else None,
        began=time.time(),
        product=found.path.partition("/")[0],
    )
