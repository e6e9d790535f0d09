"""Judge the vectors with `skylift.trust.compact`, on MicroPython as on a chip, or on CPython.

    micropython judge.py SRC FOLDER

SRC holds the package `skylift`. FOLDER holds `lines`, one JSON object each: what all cases have in common,
then the cases (a chip has no memory for all of them at once), and the files they name, unpacked. Prints a
line for each case that is judged otherwise than it says, then how many were judged.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

from skylift.trust import compact
from skylift.trust.plain import Refused

FOLDER = sys.argv[2]
EXPECTED = ("install", "nothing", "refuse", "after")


def file(name):
    if name is None:
        return None
    with open(FOLDER + "/" + name, "rb") as opened:
        return opened.read()


def judged(common, case):
    """What the verifier makes of it, as the case would say it."""
    own = dict(case["device"])
    for name in ("image_root", "director_root", "delegations"):
        own[name] = file(own[name])
    device = compact.Device(common["device_id"], common["hardware"], common["product"], **own)
    try:
        for root in case["roots"]:
            device.take_root(root["repository"], file(root["file"]))
        if case["delegations"]:
            device.take_delegations(file(case["delegations"]), case["now"])
        ask = (lambda leaves, since, size: file(case["proofs"]) or b"") if "proofs" in case else None
        found = device.decide(file(case["order"]), file(case["role"]), case["nonce"], case["now"], ask)
    except Refused as e:
        return {"refuse": {"reason": e.reason, "rule": e.rule}}
    after = {name: getattr(device, name) for name in case["after"]} if "after" in case else {}
    return {"nothing": True, "after": after} if found is None else {"install": found.__dict__, "after": after}


def main():
    count = 0
    with open(FOLDER + "/lines") as lines:
        common = json.loads(lines.readline())
        for line in lines:
            case = json.loads(line)
            found = judged(common, case)
            if found != {name: case[name] for name in EXPECTED if name in case}:
                print(case["name"], found)
            count += 1
    print(count, "judged on", sys.implementation[0])


main()
