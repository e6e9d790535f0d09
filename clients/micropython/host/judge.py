"""The vectors of conformance/http and conformance/lifecycle, judged by the client as it is installed, on
MicroPython; tests/clients/test_exchanges.py writes the lines and reads the verdicts.

usage: judge.py LIBRARY answers HOME MOST PIECE | checks HOME PIECE | words HOME
"""

import sys
from binascii import hexlify, unhexlify

HOST = __file__.rsplit("/", 1)[0]
sys.path[:0] = [HOST] + sys.argv[1].split(":")

from canned import Canned, client_on  # noqa: E402

from skylift import talk  # noqa: E402
from skylift.http import Broken  # noqa: E402


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
