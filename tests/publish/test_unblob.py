"""Bytes that nobody names any more are removed later; what somebody names by then stays."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from skylift.core.errors import Unavailable
from skylift.engine import publish
from skylift.engine.bill import check_bill
from skylift.engine.outbox import Courier
from skylift.engine.publish import NewRelease
from skylift.engine.unblob import NAMED, Unblob, keep
from skylift.store import outbox
from skylift.store.db import Database
from skylift.testkit.trustlab import ACTOR, HARDWARE, PRODUCT, Lab

IMAGE = b"an image that was uploaded too early " * 20
DIGEST = hashlib.sha256(IMAGE).hexdigest()
BILL = b'{"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": []}'


def draft(lab: Lab, version: str, body: bytes = IMAGE) -> str:
    made = lab.draft(NewRelease(PRODUCT, version))
    lab.upload(made, body)
    return made


def delete(lab: Lab, release: str) -> None:
    lab.database.write(lambda conn: publish.delete(conn, release, ACTOR, lab.clock()))


def attach(lab: Lab, release: str, body: bytes = BILL) -> str:
    intake = lab.blobs.intake(1 << 20)
    intake.write(body)
    stored = keep(lab.database, intake, lab.clock())
    bill = check_bill(body)
    lab.database.write(
        lambda conn: publish.attach_sbom(conn, release, stored.sha256, stored.size, bill, ACTOR, lab.clock())
    )
    return stored.sha256


def later(lab: Lab, after: timedelta = NAMED) -> None:
    """What the outbox has by then, it does."""
    courier = Courier(lab.database, {"unblob": Unblob(lab.database, lab.blobs)}, lab.clock)
    while courier.carry_one(lab.clock() + after):
        pass


@contextmanager
def at_it(lab: Lab) -> Iterator[None]:
    """A server is removing bytes, all through the block."""
    then = lab.clock() + NAMED
    job = lab.database.write(
        lambda conn: outbox.lease(conn, ["unblob"], "token", then + timedelta(minutes=6), then)
    )
    assert job is not None
    yield
    Unblob(lab.database, lab.blobs)(job.payload)
    assert lab.database.write(lambda conn: outbox.done(conn, job, then))


def test_a_deleted_drafts_bytes_go_later(lab: Lab) -> None:
    made = draft(lab, "1.0.0")
    bill = attach(lab, made)
    delete(lab, made)
    later(lab, NAMED - timedelta(minutes=1))
    assert (lab.blobs.has(DIGEST), lab.blobs.has(bill)) == (True, True)
    later(lab)
    assert (lab.blobs.has(DIGEST), lab.blobs.has(bill)) == (False, False)
    later(lab)  # again: nothing changes


def test_what_another_release_has_too_stays(lab: Lab) -> None:
    one, other = draft(lab, "1.0.0"), draft(lab, "1.1.0")
    bill = attach(lab, one)
    assert attach(lab, other) == bill
    delete(lab, one)
    later(lab)
    assert (lab.blobs.has(DIGEST), lab.blobs.has(bill)) == (True, True)
    delete(lab, other)
    later(lab)
    assert (lab.blobs.has(DIGEST), lab.blobs.has(bill)) == (False, False)


def test_a_bill_that_another_one_replaced_goes_later(lab: Lab) -> None:
    made = draft(lab, "1.0.0")
    bills = [attach(lab, made, body) for body in (BILL, BILL.replace(b"1.5", b"1.6"), BILL)]
    later(lab)
    assert [lab.blobs.has(bill) for bill in bills] == [True, False, True]


def test_what_comes_again_stays(lab: Lab) -> None:
    """The same command again, with the image that was in the draft before."""
    delete(lab, draft(lab, "1.0.0"))
    draft(lab, "1.0.0")
    later(lab)
    assert lab.blobs.has(DIGEST)


def test_bytes_that_are_kept_wait_for_their_name_however_late_the_draft_was_deleted(lab: Lab) -> None:
    """Between being kept and being named: the moment at which they would have been removed passes."""
    delete(lab, draft(lab, "1.0.0"))
    lab.clock.forward(minutes=29)  # type: ignore[attr-defined] # the tests' clock
    made = lab.draft(NewRelease(PRODUCT, "1.0.0"))
    settle = lab.blobs._settle

    def slowly(*what: object) -> None:
        settle(*what)  # type: ignore[arg-type] # its own
        later(lab, timedelta(minutes=29))

    lab.blobs._settle = slowly  # type: ignore[assignment,method-assign] # the lab's own store
    lab.upload(made, IMAGE)
    assert lab.blobs.has(DIGEST)
    later(lab)
    assert lab.blobs.has(DIGEST)


def test_bytes_that_are_being_removed_are_sent_again(lab: Lab) -> None:
    delete(lab, draft(lab, "1.0.0"))
    made = lab.draft(NewRelease(PRODUCT, "1.0.0"))
    with at_it(lab), pytest.raises(Unavailable, match="just being removed"):
        lab.upload(made, IMAGE, HARDWARE)
    assert not lab.blobs.has(DIGEST)
    lab.upload(made, IMAGE, HARDWARE)
    later(lab)
    assert lab.blobs.has(DIGEST)


def test_of_two_servers_one_takes_bytes_in_while_the_other_removes_them(lab: Lab, database_url: str) -> None:
    """Whoever is first: what was taken in is there."""
    other = Database(database_url)
    courier = Courier(other, {"unblob": Unblob(other, lab.blobs)}, lab.clock)
    try:
        for number in range(40):
            delete(lab, draft(lab, f"1.{number}.0"))
            lab.clock.forward(minutes=1)  # type: ignore[attr-defined] # the tests' clock
            release = lab.draft(NewRelease(PRODUCT, f"2.{number}.0"))
            due = lab.clock() + timedelta(minutes=29)
            remover = threading.Thread(target=courier.carry_one, args=(due,))
            remover.start()
            try:
                lab.upload(release, IMAGE)
            except Unavailable:
                remover.join()
                lab.upload(release, IMAGE)
            remover.join()
            later(lab, timedelta(minutes=29))
            assert lab.blobs.has(DIGEST)
            delete(lab, release)
    finally:
        other.close()
