"""A virtual ESP32 with MicroPython: the client as it is flashed, on the desk's chip, in a process.

What an image "does" is read from its description: a project whose name ends in -crashes never comes up, one
that ends in -unhealthy fails its self-tests. The settings are those of the C++ client's desk (device.cpp).

usage: device.py LIBRARY DIR server=URL device_id=.. device_type=.. product=.. [claim=..] [roots=DIR]
                 [log_size=N] [log_root=HASH]
                 [factory=FILE] [ca=FILE] [mqtt=URL] [slot_kb=N] [poll=S] [save_every=N]
                 [cut_each=N] [cut_at=N] [flaky=PPM] [settled=1] [worn=1] [broken=1] [no_clock=1]
                 [rollback=1] [chance=BYTE]
"""

import json
import os
import sys
import time

HOST = __file__.rsplit("/", 1)[0]
sys.path[:0] = [HOST] + sys.argv[1].split(":")

import esp32  # noqa: E402 - the desk's
import machine  # noqa: E402

import skylift  # noqa: E402
from skylift.http import Broken, Http  # noqa: E402
from skylift.port import Port  # noqa: E402

HOME = sys.argv[2]
OPTIONS = dict([word.split("=", 1) for word in sys.argv[3:]])
flash, boot = esp32.flash, esp32.boot


def count(name, otherwise):
    return int(OPTIONS.get(name, otherwise))


def contents(path):
    with open(path, "rb") as kept:
        return kept.read()


class DeskPort(Port):
    """The chip's own port, but for a clock that may be unset and a file system that may lose its power."""

    def now(self):
        return None if OPTIONS.get("no_clock") else super().now()

    def random(self, n):
        return bytes([int(OPTIONS["chance"], 16)] * n) if OPTIONS.get("chance") else super().random(n)

    def keep(self, name, body):
        def deed(whole):
            super(DeskPort, self).keep(name, body if whole else body[: len(body) // 2])

        flash.operate(deed)


class DeskHttp(Http):
    """A line that breaks by chance: so many in a million reads that would have brought something."""

    def _fill(self):
        came = super()._fill()
        if came and int.from_bytes(os.urandom(4), "little") % 1000000 < count("flaky", 0):
            raise Broken("an answer broke off")
        return came


class DeskHooks(skylift.Hooks):
    def __init__(self, healthy, bell):
        self._healthy, self._bell = healthy, bell

    def sensors(self):
        return self._healthy

    def mqtt(self):
        return True if self._bell is None or self._bell.connected else None

    def metrics(self):
        return {"flash_operations": flash.operations}

    def trial_message(self):
        return "" if self._healthy else "(this image is made so)"


def described(slot):
    """(version, project, security version) of the image that stands there."""
    head = bytearray(288)
    esp32.Partition((slot,)).readblocks(0, head)
    version, project = bytes(head[48:80]), bytes(head[80:112])
    text = [field[: field.find(b"\0")].decode() for field in (version, project)]
    return text[0], text[1], int.from_bytes(head[36:40], "little")


def tell(version, slot, trial):
    """What runs, for whoever looks: one small file, replaced whole."""
    slots = esp32.SLOTS_AT
    said = {
        "version": version,
        "slot": slot,
        "trial": trial,
        "operations": flash.operations,
        "written": flash.written,
        "wear": {
            "ota": flash.worst(0, 2),
            "store": flash.worst(2, slots),
            "slots": flash.worst(slots, flash.size),
        },
    }
    with open(HOME + "/status.json.new", "w") as new:
        json.dump(said, new)
    os.rename(HOME + "/status.json.new", HOME + "/status.json")


def live():
    """One boot: until the image restarts, or dies. False: nothing boots."""
    slot = boot.boot()
    if slot < 0:
        return False
    version, project, security_version = described(slot)
    print(f"boot: slot {slot}, version {version}" + (", on trial" if boot.pending() else ""))
    if project.endswith("-crashes"):
        return True
    config = skylift.Config(
        OPTIONS["server"],
        OPTIONS["device_id"],
        OPTIONS["device_type"],
        OPTIONS["product"],
        version,
        contents(OPTIONS["roots"] + "/image.root.json"),
        contents(OPTIONS["roots"] + "/director.root.json"),
        claim=OPTIONS.get("claim", ""),
        log_size=count("log_size", 0),
        log_root=OPTIONS.get("log_root", ""),
        ca=contents(OPTIONS["ca"]) if OPTIONS.get("ca") else None,
        security_version=security_version,
        poll_seconds=count("poll", 0),
        save_every=count("save_every", 65536),
    )
    client = skylift.Client(config, port=DeskPort(HOME + "/fs"))
    client.http = DeskHttp(config.server, config.ca)
    bell = None
    if OPTIONS.get("mqtt"):
        from skylift.doorbell import Doorbell

        bell = Doorbell(client, OPTIONS["mqtt"], config.ca)
    client.hooks = DeskHooks(not project.endswith("-unhealthy"), bell)
    client.begin()
    trial = boot.pending()
    tell(version, slot, trial)
    try:
        turn(client, bell, version, slot, trial)
    except machine.Restart:
        return True
    finally:
        client.finish()


def turn(client, bell, version, slot, trial):
    while True:
        rest = client.step()
        if bell:
            bell.step()
        if client.state == "rest" and OPTIONS.get("rollback") == "1":
            OPTIONS["rollback"] = "0"
            client.rollback()
        if trial and not boot.pending():
            trial = False
            tell(version, slot, trial)
        if OPTIONS.get("settled") and client.state == "rest" and settled(client.records.journal):
            sys.exit(0)
        if rest:
            time.sleep_ms(min(rest, 20))


def settled(journal):
    """Nothing is under way, and the server has heard how the last one ended."""
    return journal["ended"] and not journal["to_say"] and not journal["stage"]


def main():
    flash.open(HOME + "/flash.bin", count("slot_kb", 512) * 1024)
    if OPTIONS.get("factory") and not esp32._image(0) and not esp32._image(1):
        body = contents(OPTIONS["factory"])
        body += b"\xff" * (-len(body) % esp32.SECTOR)
        esp32.Partition((0,)).writeblocks(0, body)
    flash.cut_each, flash.cut_at = count("cut_each", 0), count("cut_at", 0)
    flash.worn, flash.broken = OPTIONS.get("worn") == "1", OPTIONS.get("broken") == "1"
    flash.operations = flash.slot_operations = 0
    while True:
        try:
            if not live():
                break
        except esp32.PowerCut:
            print("the power went, and is back")
            if flash.cut_at:
                sys.exit(7)
    print("nothing boots")
    sys.exit(3)


main()
