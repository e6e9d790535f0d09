"""Reads what `dev.py demo --json` printed on stdin: does its last line say what was promised?"""

import json
import sys
from collections.abc import Iterator
from typing import Any

DEVICES = 24
LIMIT_SECONDS = 90
KEYS = {"devices", "bricked", "deployments", "bytes_sent", "bytes_full", "chips", "seconds"}
LINE_KEYS = {
    *("version", "status", "paused_by", "status_reason"),
    *("complete", "rolled_back", "failed", "untouched"),
}


def findings(told: dict[str, Any]) -> Iterator[str]:
    """What did not come out as promised."""
    if set(told) != KEYS or any(set(line) != LINE_KEYS for line in told["deployments"]):
        yield f"the keys are {sorted(told)}, of a deployment {sorted(told['deployments'][0])}"
    if told["devices"] != DEVICES:
        yield f"devices is {told['devices']}: {DEVICES} were promised"
    if told["bricked"] != 0:
        yield f"bricked is {told['bricked']}: 0 was promised"
    if told["seconds"] >= LIMIT_SECONDS:
        yield f"seconds is {told['seconds']}: less than {LIMIT_SECONDS} was promised"
    if not 0 < told["bytes_sent"] < told["bytes_full"]:
        yield f"bytes_sent is {told['bytes_sent']}: deltas must send less than {told['bytes_full']}"
    if told["chips"]["devices"] < 1 or told["chips"]["worst_wear"] < 1:
        yield f"chips is {told['chips']}: virtual ESP32s among the devices were promised"
    by_version = {deployment["version"]: deployment for deployment in told["deployments"]}
    if set(by_version) != {"1.0.0", "1.1.0", "1.2.0"}:
        yield f"versions are {sorted(by_version)}: 1.1.0, 1.2.0 and back to 1.0.0 were promised"
        return
    bad = by_version["1.2.0"]
    for version in ("1.1.0", "1.0.0"):  # forward, and the operator's rollback
        good = by_version[version]
        if (
            (good["status"], good["complete"]) != ("complete", DEVICES)
            or good["failed"]
            or good["rolled_back"]
        ):
            yield f"{version} is {good}: complete on every device was promised"
    if (bad["status"], bad["paused_by"]) != ("paused", "failure_threshold"):
        yield f"1.2.0 is {bad['status']}, paused by {bad['paused_by']}: it must pause itself"
    if not bad["status_reason"]:
        yield "1.2.0 does not say why it paused"
    if bad["complete"] or not bad["rolled_back"] or bad["rolled_back"] + bad["untouched"] != DEVICES:
        yield f"1.2.0 is {bad}: the canaries fall back, nobody else is touched"


def main() -> int:
    try:
        found = list(findings(json.loads(sys.stdin.read().strip().splitlines()[-1])))
    except (ValueError, LookupError, TypeError) as e:
        found = [f"not the promised JSON object: {type(e).__name__}: {e}"]
    for finding in found:
        print(f"demo: {finding}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
