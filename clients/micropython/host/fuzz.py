"""Everything of the MicroPython client that reads what a stranger sent, given what is nearly right: it says
that it does not like it, by the exceptions that its callers expect, and by nothing else.

usage: fuzz.py LIBRARY HOME SEEDS COUNT SEED       HOME: the testkit's scene; SEEDS: files PARSER-NAME

Prints `PARSER COUNT` for each, and `finding PARSER EXCEPTION HEX` for what it should not have done.
"""

import os
import random
import sys
from binascii import hexlify

HOST = __file__.rsplit("/", 1)[0]
sys.path[:0] = [HOST] + sys.argv[1].split(":")

from canned import Canned, Line, client_on  # noqa: E402

from skylift import talk  # noqa: E402
from skylift.doorbell import Doorbell  # noqa: E402
from skylift.http import Broken  # noqa: E402
from skylift.records import FRESH  # noqa: E402
from skylift.trust import plain  # noqa: E402

MOST = 16384
HINTS = (
    b"",
    b"\r\n",
    b"\r\n\r\n",
    b"-1",
    b"99999999999999999999",
    b"0x",
    b"\x00",
    b"\xff\xff\xff\x7f",
    b"{",
    b"[[",
    b'"',
    b"null",
)


def mutated(body):
    """A few small changes."""
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(body))
        upto = min(len(body), at + random.choice((0, 1, 1, 2, 8)))
        how = random.randint(0, 3)
        if how == 0:
            new = bytes([random.getrandbits(8) for _ in range(upto - at)])
        elif how == 1:
            new = random.choice(HINTS)
        elif how == 2:
            new = body[at:upto] * 3
        else:
            new, upto = b"", random.choice((upto, upto, len(body)))
        body = body[:at] + new + body[upto:]
    return body[:MOST]


class Wire(Line):
    """As the doorbell reads and writes it."""

    def read(self, most):
        room = bytearray(most)
        n = self.readinto(room)
        return None if n is None else bytes(room[:n])

    def write(self, body):
        return len(body)


def through(deed):
    for _ in range(40000):
        try:
            next(deed)
        except StopIteration:
            return
    raise RuntimeError("it does not end")


def http(client, body):
    client.http = Canned(body, 509)
    try:
        through(talk.exchange(client, "GET", "/x", 4096))
    except (Broken, talk.Away):
        pass


def check(client, body):
    said = b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    client.http = Canned(said, 4096, "/api/updates/check")
    try:
        through(talk.check(client))
    except (Broken, talk.Away, talk.Bad):
        pass


def report(client, body):
    said = b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    client.http = Canned(said, 4096)
    try:
        through(talk.say(client, "downloading", 10))
    except talk.Ended:
        pass


def mqtt(client, body):
    bell = Doorbell(client, "mqtt://h")
    bell._line, bell._heard_at = Wire(body, 97), bell._next
    for _ in range(2 * len(body) // 97 + 8):
        bell.step()
        if bell._line is None:
            return


def signed(client, body):
    try:
        plain.value(body, 0, 1)
    except plain.Refused:
        pass


def records(client, body):
    """Of NVS: what wear left there."""
    for name in FRESH:
        client.port.get = lambda key: body
        client.records._load(name, FRESH[name]())


PARSERS = {"http": http, "check": check, "report": report, "mqtt": mqtt, "signed": signed, "records": records}


def main():
    home, folder, count = sys.argv[2], sys.argv[3], int(sys.argv[4])
    random.seed(int(sys.argv[5]))
    client = client_on(home, None)
    for name in sorted(PARSERS):
        seeds = []
        for file in sorted(os.listdir(folder)):
            if file.startswith(name + "-"):
                with open(folder + "/" + file, "rb") as kept:
                    seeds.append(kept.read())
        for _ in range(count):
            body = mutated(random.choice(seeds))
            try:
                PARSERS[name](client, body)
            except MemoryError:
                raise
            except Exception as e:  # noqa: BLE001 - whatever it is, it is what is looked for
                print("finding", name, type(e).__name__, str(e)[:80], hexlify(body[:400]).decode())
        print(name, count)


main()
