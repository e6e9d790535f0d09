"""What survives a power cut: three records in NVS, each written as one blob, all or nothing."""

import json

IDLE, FETCHING, BOOTING = 0, 1, 2
ANSWERED = 4  # orders that are over, so that none is begun twice


def journal():
    """What is under way, and what nobody has heard yet."""
    return {
        "stage": IDLE, "slot": "", "tries": 0, "armed": False, "resumed": False,
        "deployment": "", "attempt": 0, "sha256": "", "length": 0, "url": "", "security_version": 0,
        "to_say": "", "ended": "", "reason": "", "words": "", "answered": [],
    }  # fmt: skip


def facts():
    """`images`: slot -> [length, sha256] of what was installed there; versions no older of which is taken."""
    return {
        "floor": 0, "token": "", "enrolled": False, "images": {},
        "order": 0, "role": 0, "delegation": 0, "log_size": 0, "log_root": "",
    }  # fmt: skip


def offset():
    """Bytes of the image that stand in flash."""
    return {"at": 0}


FRESH = {"journal": journal, "facts": facts, "offset": offset}


class Records:
    """`journal`, `facts`, `offset`: dictionaries, to be changed and then saved by name."""

    def __init__(self, port):
        self._port = port
        for name, fresh in FRESH.items():
            setattr(self, name, self._load(name, fresh()))

    def _load(self, name, fresh):
        try:
            found = json.loads(self._port.get(name) or b"{}")
        except ValueError:
            return fresh
        if not isinstance(found, dict):
            return fresh
        fresh.update({key: value for key, value in found.items() if type(value) is type(fresh.get(key))})
        return fresh

    def save(self, name):
        """Whether it stands. What cannot be written down must not be begun."""
        try:
            self._port.put(name, json.dumps(getattr(self, name)).encode())
        except OSError:
            self._port.log("the key-value store cannot be written")
            return False
        return True
