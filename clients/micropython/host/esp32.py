"""A desk's `esp32`: partitions, boot control and NVS of a chip whose flash is a file.

Flash is erased by sectors to ones and only clears bits; a write that the power leaves is torn. Every
operation counts, and `cut_at` takes the power away in the middle of one. The layout is that of the C++ desk:
otadata in two sectors, NVS in eight, two slots.
"""

import hashlib
import json
import os
import struct
from binascii import crc32, hexlify, unhexlify

SECTOR = 4096
SLOTS_AT = 10
NEW, PENDING, VALID, ABORTED = 0, 1, 2, 4


class PowerCut(BaseException):
    pass


class Flash:
    """One file; the power is cut at operation `cut_at`, or at each `cut_each`th in a slot (0: never)."""

    def __init__(self):
        self.file = None
        self.operations = self.cut_at = self.cut_each = self.slot_operations = self.written = 0
        self.worn = self.broken = False
        self.wear = {}

    def open(self, path, slot_size):
        self.slot_size = slot_size
        self.size = SLOTS_AT * SECTOR + 2 * slot_size
        try:
            os.stat(path)
        except OSError:
            with open(path, "wb") as made:
                for _ in range(self.size // SECTOR):
                    made.write(b"\xff" * SECTOR)
        self.file = open(path, "r+b")

    def read(self, at, into):
        self.file.seek(at)
        self.file.readinto(into)

    def operate(self, deed, sector=0):
        """`deed(whole)`; torn where the power goes."""
        self.operations += 1
        self.slot_operations += sector >= SLOTS_AT
        if self.operations == self.cut_at or (self.cut_each and self.slot_operations == self.cut_each):
            self.slot_operations = 0
            deed(False)
            self.file.flush()
            raise PowerCut()
        deed(True)
        self.file.flush()

    def erase(self, sector):
        def deed(whole):
            self.file.seek(sector * SECTOR)
            self.file.write(b"\xff" * (SECTOR if whole else SECTOR // 2 - 7))

        self.wear[sector] = self.wear.get(sector, 0) + 1
        self.operate(deed, sector)

    def write(self, at, body):
        old = bytearray(len(body))
        self.read(at, old)
        body = bytes([new & was for new, was in zip(body, old)])

        def deed(whole):
            self.file.seek(at)
            self.file.write(body if whole else body[: len(body) // 3])

        self.written += len(body)
        self.operate(deed, at // SECTOR)

    def worst(self, first, last):
        return max([count for sector, count in self.wear.items() if first <= sector < last] or [0])


flash = Flash()


# --- boot control -------------------------------------------------------------------------------------


def _crc(number):
    return crc32(struct.pack("<I", number), 0xFFFFFFFF) & 0xFFFFFFFF


def _entries():
    """(number, state, sector) of the good ones, the newest last."""
    found, entry = [], bytearray(32)
    for sector in (0, 1):
        flash.read(sector * SECTOR, entry)
        number, state, check = struct.unpack("<I20xII", entry)
        if number != 0xFFFFFFFF and check == _crc(number) and state != ABORTED:
            found.append((number, state, sector))
    return sorted(found)


def _entry(sector, number, state):
    flash.erase(sector)
    flash.write(sector * SECTOR, struct.pack("<I20sII", number, b"\xff" * 20, state, _crc(number)))


def _state(sector, state):
    """In place: each state clears bits of the one before but for VALID's, so the sector is written anew."""
    number = next(entry[0] for entry in _entries() if entry[2] == sector)
    _entry(sector, number, state)


class Boot:
    """The second-stage boot loader; which slot it booted."""

    slot = 0

    def boot(self):
        """An image on trial that was not marked valid is not booted again. -1: nothing boots."""
        entries = _entries()
        if entries and entries[-1][1] == PENDING:
            _state(entries[-1][2], ABORTED)
            entries = _entries()
        if entries and entries[-1][1] == NEW:
            _state(entries[-1][2], PENDING)
        order = [(entry[0] - 1) % 2 for entry in reversed(entries)] + [0, 1]
        for slot in order:
            if _image(slot):
                self.slot = slot
                return slot
        return -1

    def pending(self):
        entries = _entries()
        return bool(entries) and entries[-1][1] == PENDING and (entries[-1][0] - 1) % 2 == self.slot


boot = Boot()


def _at(slot):
    return SLOTS_AT * SECTOR + slot * flash.slot_size


def _image(slot):
    """Whether an image stands there whole: its appended digest holds."""
    head = bytearray(24)
    flash.read(_at(slot), head)
    if head[0] != 0xE9:
        return False
    segment = bytearray(4)
    flash.read(_at(slot) + 28, segment)
    end = ((32 + int.from_bytes(segment, "little")) | 15) + 1
    if end + 32 > flash.slot_size:
        return False
    hashed, piece, told = hashlib.sha256(), bytearray(SECTOR), bytearray(32)
    for at in range(0, end, SECTOR):
        flash.read(_at(slot) + at, piece)
        hashed.update(memoryview(piece)[: min(SECTOR, end - at)])
    flash.read(_at(slot) + end, told)
    return hashed.digest() == bytes(told)


class Partition:
    BOOT, RUNNING, TYPE_APP, TYPE_DATA = 0, 1, 0, 1

    def __init__(self, which):
        self._slot = boot.slot if which in (0, 1) else which[0]

    @classmethod
    def find(cls, type=0, subtype=0xFF, label=None):
        return [_OtaData()] if type == cls.TYPE_DATA and subtype == 0 else []

    def info(self):
        return (0, 0x10 + self._slot, _at(self._slot), flash.slot_size, "ota_" + str(self._slot), False)

    def get_next_update(self):
        return Partition((1 - boot.slot,))

    def readblocks(self, block, into, offset=0):
        flash.read(_at(self._slot) + block * SECTOR + offset, into)

    def writeblocks(self, block, body):
        if flash.broken:
            raise OSError(5)
        for at in range(0, len(body), SECTOR):
            place = _at(self._slot) + block * SECTOR + at
            flash.erase(place // SECTOR)
            flash.write(place, body[at : at + SECTOR])

    def set_boot(self):
        if not _image(self._slot):
            raise OSError(-5379)  # ESP_ERR_OTA_VALIDATE_FAILED
        entries = _entries()
        number = (entries[-1][0] if entries else boot.slot + 1) + 1
        while (number - 1) % 2 != self._slot:
            number += 1
        if not entries:  # what runs now is what it falls back to
            _entry(0, boot.slot + 1, VALID)
            entries = _entries()
        _entry(1 - entries[-1][2], number, NEW)

    @staticmethod
    def mark_app_valid_cancel_rollback():
        entries = _entries()
        if entries and (entries[-1][0] - 1) % 2 == boot.slot and entries[-1][1] != VALID:
            _state(entries[-1][2], VALID)


class _OtaData:
    def readblocks(self, block, into, offset=0):
        flash.read(block * SECTOR + offset, into)


# --- NVS: every record in one of two halves, the other one holds what was before ----------------------


class NVS:
    HALF = 4 * SECTOR

    def __init__(self, namespace):
        self._namespace = namespace
        self._changed = {}

    def get_blob(self, key, into):
        found = self._load()[1].get(self._namespace + "." + key)
        if found is None or len(found) // 2 > len(into):
            raise OSError(-4354)  # ESP_ERR_NVS_NOT_FOUND
        body = unhexlify(found)
        into[: len(body)] = body
        return len(body)

    def set_blob(self, key, body):
        if flash.worn:
            raise OSError(-4357)  # ESP_ERR_NVS_NOT_ENOUGH_SPACE
        self._changed[self._namespace + "." + key] = hexlify(body).decode()

    def commit(self):
        number, kept = self._load()
        kept.update(self._changed)
        self._changed = {}
        body = json.dumps(kept).encode()
        first = 2 + 4 * (number & 1)  # the half that is older
        for sector in range(4):
            flash.erase(first + sector)
        head = struct.pack("<III", number + 1, len(body), crc32(body))
        flash.write(first * SECTOR, head + body)

    def _load(self):
        best = (0, {})
        for half in (0, 1):
            head, at = bytearray(12), (2 + 4 * half) * SECTOR
            flash.read(at, head)
            number, length, check = struct.unpack("<III", head)
            if number & 1 == half or length > self.HALF - 12 or number <= best[0]:
                continue
            body = bytearray(length)
            flash.read(at + 12, body)
            if crc32(body) == check:
                best = (number, json.loads(body))
        return best
