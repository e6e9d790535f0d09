"""Attackers who own the line and nothing else: what comes is slow, endless, cut, doubled, withheld or no
certificate. Nothing is installed that should not be, and no agent hangs or ends.
"""

import base64
import json
import threading
from dataclasses import replace

import pytest

from skylift.agent import transport
from skylift.testkit import hostile
from skylift.testkit.victims import Scene, Victim

from .conftest import BLOB, CHECK, FINDS, HASH, SIGNATURE, MakeVictim, no_delta

# --- time that never ends -----------------------------------------------------------------------------


def test_endless_data(scene: Scene, make_victim: MakeVictim) -> None:
    victim = make_victim()
    for file in ("timestamp.json", "2.root.json", "targets.json"):
        scene.order(victim)
        whole = b"HTTP/1.1 200 OK\r\n\r\n"
        victim.proxy.lie(f"/director/.*{file}$", hostile.endless_raw(whole, b" " * 65536))
        sent = victim.proxy.sent
        victim.refuses(SIGNATURE)
        assert victim.proxy.sent - sent < 8 << 20, "the line is closed, not drained"
        victim.proxy.honest()
    scene.order(victim)
    victim.proxy.lie("^/api/log/", hostile.endless_raw(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536))
    victim.refuses(SIGNATURE)
    victim.proxy.honest()
    scene.order(victim)
    no_delta(victim)
    victim.proxy.lie(BLOB, hostile.endless(b"\0" * 65536, before=False))
    victim.refuses(HASH)
    victim.recovers()


def test_slow_retrieval(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then never runs into a socket's timeout: the rate and the deadline do."""
    monkeypatch.setattr(transport, "ANSWER_S", 0.3)
    monkeypatch.setattr(transport, "SLOW_WINDOW_S", 0.2)
    for path, head in ((CHECK, True), ("timestamp.json", True), ("timestamp.json", False)):
        victim.proxy.lie(path, hostile.trickled(victim.proxy, 0.05, head))
        victim.holds_out(2)
        assert "within 0.3 s" in victim.log[-1]
        victim.proxy.honest()
    flood = b"HTTP/1.1 100 Continue\r\n\r\n"
    for piece in (flood, b"X-More: and more\r\n", b"1"):
        victim.proxy.lie(
            "timestamp.json", hostile.endless_raw(b"" if piece == flood else b"HTTP/1.1 200 OK\r\n", piece)
        )
        victim.holds_out(2)
        assert victim.waits
        victim.proxy.honest()
    monkeypatch.setattr(transport, "ANSWER_S", 60.0)  # what is honest may be slow on a busy machine
    no_delta(victim)
    victim.proxy.lie(BLOB, hostile.trickled(victim.proxy, 0.05))
    victim.holds_out(3)
    assert "too slow" in victim.log[-1]
    victim.recovers(order=False)


def test_slow_retrieval_past_its_deadline(scene: Scene, make_victim: MakeVictim) -> None:
    """Never slower than the minimum rate, and without end all the same: the deadline ends it."""
    victim = make_victim(download_deadline_seconds=1.0, min_bytes_per_second=1)
    scene.order(victim)
    no_delta(victim)
    victim.proxy.lie(BLOB, hostile.trickled(victim.proxy, 0.05))
    assert "deadline" in victim.refuses("download_error")
    victim.off()
    victim.config = victim.transport.config = replace(victim.config, download_deadline_seconds=3600.0)
    victim.recovers()


# --- answers that are not what was sent ----------------------------------------------------------------


def test_a_proxy_that_strips_reorders_and_duplicates(scene: Scene, make_victim: MakeVictim) -> None:
    """Headers go, files are swapped, answers come twice: what cannot be used is waited out or refused, and
    what is still whole is installed as what it is."""
    victim = make_victim()
    scene.order(victim)
    victim.proxy.lie(
        "^/", hostile.stripped("Content-Length", "Content-Type", "ETag", "Retry-After", "Accept-Ranges")
    )
    victim.until(lambda: victim.version == "1.1.0" and victim.settled(), "an update without headers")
    swapped = make_victim()
    scene.order(swapped)
    swap = lambda path: path.replace("targets.json", "snapshot.json")  # noqa: E731
    swapped.proxy.lie("/director/.*targets.json", hostile.swapped(swapped.proxy, swap))
    swapped.refuses(SIGNATURE)
    swapped.recovers()
    twice = make_victim()
    scene.order(twice)
    twice.proxy.lie("^/", hostile.doubled())
    twice.until(
        lambda: twice.version == "1.1.0" and twice.settled(), "an update in which everything comes twice"
    )


def test_a_withheld_file_is_no_verdict(victim: Victim) -> None:
    for file in ("timestamp.json", "snapshot.json", "targets.json"):
        for status in (404, 500, 301):
            victim.proxy.lie(f"/(director|image)/.*{file}", hostile.withheld(status))
            victim.holds_out(2)
            victim.proxy.honest()
    victim.recovers(order=False)


def test_a_delayed_answer_is_the_same_answer(victim: Victim) -> None:
    until = threading.Event()
    victim.proxy.lie("^/image/timestamp.json", hostile.delayed(until, 0.2))
    victim.recovers(order=False)


@pytest.mark.parametrize("keep", [0, 40, 400])
def test_truncated_metadata(victim: Victim, keep: int) -> None:
    """Cut off, it is waited for; cut off and called whole, it is refused."""
    victim.proxy.lie("timestamp.json", hostile.truncated(keep))
    victim.holds_out(2)
    victim.proxy.honest()
    victim.proxy.lie("timestamp.json", hostile.shortened(keep))
    victim.refuses(SIGNATURE)


def test_a_certificate_that_nobody_can_read_ends_no_agent(scene: Scene, make_victim: MakeVictim) -> None:
    """Found by fuzzing: one of a curve that the library does not know, one of no known version."""
    for find in sorted(FINDS.glob("certificates.*")):
        victim = make_victim(own_key=True)
        scene.order(victim)
        told = base64.encodebytes(find.read_bytes()).decode()
        pem = f"-----BEGIN CERTIFICATE-----\n{told}-----END CERTIFICATE-----\n"
        dates = {"issued_at": "2026-01-01T00:00:00+00:00", "expires_at": "2027-01-01T00:00:00+00:00"}
        body = json.dumps({"certificate": pem, **dates}).encode()
        victim.proxy.lie("/certificate$", hostile.instead(body))
        victim.proxy.lie("^/(director|image)/", hostile.withheld(503))
        with victim.resists():
            victim.until(lambda v=victim: any("not certified" in said for said in v.log), "the refusal")  # type: ignore[misc]
        victim.recovers(order=False)
