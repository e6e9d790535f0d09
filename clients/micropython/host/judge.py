"""The vectors of conformance/http and conformance/lifecycle, judged by the client as it is installed, on
MicroPython; tests/clients/test_exchanges.py writes the lines and reads the verdicts.

usage: judge.py LIBRARY answers HOME MOST PIECE | checks HOME PIECE | words HOME
"""

import sys
from binascii import hexlify, unhexlify

HOST = __file__.rsplit("/", 1)[0]
sys.path[:0] = [HOST] + sys.argv[1].split(":")

import esp32  # noqa: E402 - the desk's

import skylift  # noqa: E402
from skylift import talk  # noqa: E402
from skylift.http import Broken, Http  # noqa: E402
from skylift.port import Port  # noqa: E402

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


def ended(deed):
    """What a generator comes to."""
    try:
        while True:
            next(deed)
    except StopIteration as e:
        return e.value


def answer(home, raw, most, piece):
    http = Canned(raw, piece)
    client = client_on(home, http)
    try:
        body = ended(talk.exchange(client, "GET", "/x", most))
    except Broken:
        return "broken"
    except talk.Away:
        return "large"
    if http.status == 200:
        return "200 " + hexlify(body).decode()
    return str(http.status) + " " + str(talk.refused_or_away(http, "").retry_after)


def check(home, raw, piece):
    http = Canned(raw, piece, "/api/updates/check")
    try:
        found = ended(talk.check(client_on(home, http)))
    except (Broken, talk.Away):
        return "offer" if len(http.asked) > 1 else "later"
    return "stuck" if found.image else "nothing"


def word(home, state):
    said = b'{"state":"' + state + b'"}'
    http = Canned(b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(said)).encode() + b"\r\n\r\n" + said, 7)
    try:
        ended(talk.say(client_on(home, http), "downloading", 10))
    except talk.Ended:
        return "ends"
    return "goes on"


def main():
    what, home = sys.argv[2:4]
    for line in sys.stdin:
        line = line.strip()
        if what == "answers":
            print(answer(home, unhexlify(line), int(sys.argv[4]), int(sys.argv[5])))
        elif what == "checks":
            print(check(home, unhexlify(line), int(sys.argv[4])))
        else:
            print(word(home, line.encode()))


main()
