"""The hardware port: everything the client asks of the chip that it runs on."""

import os
import struct
import time
from binascii import crc32

import machine
from esp32 import NVS, Partition

SECTOR = 4096  # what flash erases at once
PENDING_VERIFY = 1  # ESP-IDF's esp_ota_img_states_t
GONE = (3, 4)  # invalid, aborted
UNSET = 1704067200  # a clock that says less than 2024 is not set
EPOCH = 946684800 if time.gmtime(0)[0] == 2000 else 0


class Port:
    """The two OTA slots, boot control, NVS and a folder of the file system."""

    def __init__(self, folder="/skylift", namespace="skylift"):
        self.running = Partition(Partition.RUNNING)
        self.other = self.running.get_next_update()
        self._nvs = NVS(namespace)
        self._folder = folder
        self._room = bytearray(2048)

    # --- slots: a partition is named by its label ------------------------------------------------------

    def name(self, slot):
        return slot.info()[4]

    def size(self, slot):
        return slot.info()[3]

    def write(self, at, page):
        """Erases the sectors there and writes them, in the slot that does not run."""
        self.other.writeblocks(at // SECTOR, page)

    def read(self, slot, at, into):
        slot.readblocks(at // SECTOR, into, at % SECTOR)

    # --- boot control ----------------------------------------------------------------------------------

    def set_boot(self):
        """Boots the other slot, on trial: an image that is not marked valid falls back at its next reset."""
        self.other.set_boot()

    def pending_verify(self):
        """Whether the running image is on trial: MicroPython has no question for it, so otadata is read."""
        found = Partition.find(Partition.TYPE_DATA, 0)
        if not found:
            return False
        best, state, entry = 0, None, bytearray(32)
        for sector in (0, 1):
            found[0].readblocks(sector, entry)
            number, said, check = struct.unpack("<I20xII", entry)
            good = check == crc32(struct.pack("<I", number), 0xFFFFFFFF) & 0xFFFFFFFF
            if good and number != 0xFFFFFFFF and said not in GONE and number > best:
                best, state = number, said
        return state == PENDING_VERIFY

    def mark_valid(self):
        Partition.mark_app_valid_cancel_rollback()

    def reset(self):
        machine.reset()

    # --- what survives ---------------------------------------------------------------------------------

    def get(self, key):
        """Bytes, or None."""
        try:
            n = self._nvs.get_blob(key, self._room)
        except OSError:
            return None
        return bytes(memoryview(self._room)[:n])

    def put(self, key, body):
        """All or nothing; OSError where it cannot be written."""
        self._nvs.set_blob(key, body)
        self._nvs.commit()

    def file(self, name):
        """The contents of a file that was kept, or None."""
        try:
            with open(self._folder + "/" + name, "rb") as kept:
                return kept.read()
        except OSError:
            return None

    def keep(self, name, body):
        """A file, replaced whole; OSError where it cannot be written."""
        try:
            os.mkdir(self._folder)
        except OSError:
            pass  # it is there, or the next line says why not
        path = self._folder + "/" + name
        with open(path + ".new", "wb") as new:
            new.write(body)
        try:
            os.rename(path + ".new", path)
        except OSError:  # FAT replaces nothing
            os.remove(path)
            os.rename(path + ".new", path)

    # --- the rest --------------------------------------------------------------------------------------

    def now(self):
        """Seconds since 1970, None while the clock is not set."""
        found = int(time.time()) + EPOCH
        return found if found > UNSET else None

    def random(self, n):
        return os.urandom(n)

    def log(self, sentence):
        print(sentence)
