"""For judges and fuzzers: the client as it is installed, on the desk's chip, with a line that says what it
is told to."""

import esp32

import skylift
from skylift.http import Http
from skylift.port import Port

AWAY = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"


class Line:
    """Answers with what it was given, so many bytes at a time, and ends; every other look finds nothing."""

    def __init__(self, answer, piece):
        self._answer, self._piece, self._waits = answer, piece, False

    def readinto(self, room):
        self._waits = not self._waits
        if self._waits:
            return None
        n = min(self._piece, len(room), len(self._answer))
        room[:n] = self._answer[:n]
        self._answer = self._answer[n:]
        return n

    def close(self):
        pass


class Canned(Http):
    """The client's reader on a line that is there already. `asked`: every path."""

    def __init__(self, answer, piece, for_path=None):
        super().__init__("http://h")
        self._canned = answer, piece, for_path
        self.asked = []

    def ask(self, method, path, token="", body=None, start=0, etag=""):
        answer, piece, for_path = self._canned
        self.asked.append(path)
        meant = for_path is None or path.startswith(for_path)
        self._line = Line(answer if meant else AWAY, piece if meant else 64)
        self._raw, self._left, self._chunked = b"", 0, False
        self.status, self.headers = 0, {}


class QuietPort(Port):
    def log(self, sentence):
        pass


def contents(path):
    with open(path, "rb") as kept:
        return kept.read()


def client_on(home, http):
    """The client of a device of the scene in this folder, running its old image."""
    esp32.flash.open(home + "/flash.bin", 163840)
    esp32.boot.boot()
    device_id, device_type, product, old = contents(home + "/words").decode().split(" ")[:4]
    roots = [contents(home + "/" + repo + ".root") for repo in ("image", "director")]
    config = skylift.Config("http://h", device_id, device_type, product, old, *roots, token="of a desk")
    made = skylift.Client(config, port=QuietPort(home + "/fs"))
    made.http = http
    made.begin()
    return made
