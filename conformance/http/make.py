"""Writes vectors.json: what servers answer, good and bad, byte for byte, and what a client makes of it."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

from skylift.testkit.esp32scene import offer

WHERE = Path(__file__).with_name("vectors.json")
VERSION = 1
MOST = 600  # bytes of a file, in these vectors

OK = "HTTP/1.1 200 OK\r\n"
CHUNKED = OK + "Transfer-Encoding: chunked\r\n\r\n"
BROKEN = {"broken": True}
LARGE = {"large": True}


def body(text: str) -> dict[str, Any]:
    return {"status": 200, "body": text}


def status(number: int, retry_after: int = 30) -> dict[str, Any]:
    return {"status": number, "retry_after": retry_after}


def sized(text: str, head: str = OK) -> str:
    return f"{head}Content-Length: {len(text)}\r\n\r\n{text}"


def refusal(line: str, *headers: str) -> str:
    return "".join(f"{each}\r\n" for each in (f"HTTP/1.1 {line}", *headers, "Content-Length: 2", "", "no"))[
        :-2
    ]


# name -> (the answer, what a small file that was asked for comes to, what it may come to instead)
ANSWERS: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "a body by its length": (sized("hello"), body("hello"), None),
    "an empty body": (sized(""), body(""), None),
    "names of headers in any case": ("HTTP/1.1 200 OK\r\ncONTENT-lENGTH:5\r\n\r\nhello", body("hello"), None),
    "more behind the body": (sized("hello") + "HTTP/1.1 500", body("hello"), None),
    "a body in chunks": (CHUNKED + "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", body("hello"), None),
    "chunks with extensions": (CHUNKED + "5;a=b\r\nhello\r\n0\r\n\r\n", body("hello"), None),
    "chunks in hexadecimal": (CHUNKED + "1A\r\n" + "x" * 26 + "\r\n0\r\n\r\n", body("x" * 26), None),
    "a body until the end": (OK + "\r\nhello", body("hello"), BROKEN),
    "as large as may be": (sized("x" * MOST), body("x" * MOST), None),
    "one byte larger": (sized("x" * (MOST + 1)), LARGE, None),
    "larger in chunks": (CHUNKED + f"{MOST + 9:x}\r\n" + "x" * (MOST + 9) + "\r\n0\r\n\r\n", LARGE, None),
    "it is not there": (refusal("404 Not Found"), status(404), None),
    "come again": (refusal("503 Later", "Retry-After: 7"), status(503, 7), None),
    "come again, next year": (refusal("503 Later", "Retry-After: 31536000"), status(503, 3600), status(503)),
    "come again, never said when": (refusal("429 Later", "Retry-After: soon"), status(429), None),
    "the server fails": (refusal("500 No"), status(500), None),
    "another place": (refusal("302 Found", "Location: http://198.51.100.7/x"), status(302), None),
    "another place for ever": (refusal("301 Moved", "Location: /elsewhere"), status(301), None),
    "nothing at all": ("", BROKEN, None),
    "it ends in the first line": ("HTTP/1.1 20", BROKEN, None),
    "it ends in the head": (OK + "Content-Le", BROKEN, None),
    "it ends before the body": (OK + "Content-Length: 5\r\n\r\n", BROKEN, None),
    "it ends in the body": (OK + "Content-Length: 5\r\n\r\nhel", BROKEN, None),
    "it ends in a chunk": (CHUNKED + "5\r\nhel", BROKEN, None),
    "it ends between chunks": (CHUNKED + "5\r\nhello\r\n", BROKEN, None),
    "a chunk of no size": (CHUNKED + "zz\r\nhello\r\n0\r\n\r\n", BROKEN, None),
    "no HTTP": ("SSH-2.0-OpenSSH_9.2\r\n\r\n", BROKEN, None),
    "a status that is none": ("HTTP/1.1 yes OK\r\nContent-Length: 0\r\n\r\n", BROKEN, None),
    "a head without an end": (OK + f"X: {'x' * 40}\r\n" * 200, BROKEN, None),
}
OFFER = offer("1.1.0", "/api/blobs/" + "ab" * 32, "ab" * 32, 9)
NOTHING = {"update_available": False, "retry_after": 300}


def said(answer: object) -> str:
    return sized(json.dumps(answer))


# name -> (the answer to a check, what the client does next: `offer`, it fetches what is signed; `nothing`, it
# asks again when the answer says; `later`, no update now)
CHECKS: dict[str, tuple[str, str]] = {
    "an offer": (said(OFFER), "offer"),
    "an offer with words of a later server": (said({**OFFER, "new": {"a": [1, 2, {"b": None}]}}), "offer"),
    "nothing": (said(NOTHING), "nothing"),
    "nothing, with words of a later server": (said({**NOTHING, "new": [1.5, None]}), "nothing"),
    "nothing, and no time": (said({"update_available": False}), "nothing"),
    "nothing, and a time that is none": (said({**NOTHING, "retry_after": "soon"}), "nothing"),
    "neither yes nor no": (said({**OFFER, "update_available": "yes"}), "later"),
    "a number for yes": (said({**OFFER, "update_available": 1}), "later"),
    "no word of it": (said({"retry_after": 5}), "later"),
    "a list": (said([OFFER]), "later"),
    "an empty object": (said({}), "later"),
    "a word": (said("true"), "later"),
    "no JSON": (sized("{" * 30), "later"),
    "a cut object": (sized('{"update_available": true, '), "later"),
    "an empty body": (sized(""), "later"),
    "a page": (sized("<html>Log in</html>", OK + "Content-Type: text/html\r\n"), "later"),
    "nothing, by status": ("HTTP/1.1 204 No Content\r\n\r\n", "later"),
    "another place": (refusal("302 Found", "Location: http://198.51.100.7/"), "later"),
    "nobody": (refusal("401 No"), "later"),
    "not there": (refusal("404 Not Found"), "later"),
    "a teapot": (refusal("418 No"), "later"),
    "later": (refusal("503 Later", "Retry-After: 1"), "later"),
    "an offer that is a refusal": (said(OFFER).replace("200 OK", "500 No"), "later"),
    "a line that breaks": (said(OFFER)[:-20], "later"),
}


def written() -> dict[str, Any]:
    """What vectors.json holds."""

    def raw(text: str) -> str:
        return base64.b64encode(zlib.compress(text.encode(), 9)).decode()

    answers = [
        {"name": name, "answer": raw(text), "comes_to": found, **({"or": other} if other else {})}
        for name, (text, found, other) in ANSWERS.items()
    ]
    checks = [{"name": name, "answer": raw(text), "next": next_} for name, (text, next_) in CHECKS.items()]
    return {"version": VERSION, "most": MOST, "answers": answers, "checks": checks}


if __name__ == "__main__":
    WHERE.write_text(json.dumps(written(), indent=1) + "\n")
