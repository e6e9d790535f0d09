"""The director: per device, one signed order. Stored is what it says; files are signed on demand.

Signatures are deterministic, so the same row always gives the same bytes. Nothing is signed for a device
that has nothing to do. An order gets a new version when it changes, and when it is asked for past half of
its life; timestamps likewise, lazily.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from skylift.core.errors import Kind, Rejected
from skylift.engine import log
from skylift.store import trustfiles
from skylift.store.db import Connection
from skylift.store.trustfiles import OrderRow
from skylift.trust import files
from skylift.trust.keys import KeySigner
from skylift.trust.roles import DIRECTOR, IMAGE, rule

FRESH = "order.json"  # the newest order with the check's nonce and the log in it, for small devices


@dataclass(frozen=True, slots=True)
class OrderTarget:
    """What a device is ordered to install: the image as the image repo describes it, and why."""

    path: str
    length: int
    sha256: str
    custom: dict[str, Any]
    deployment: str
    attempt: int
    mandatory: bool


def assign(conn: Connection, device_pk: int, target: OrderTarget | None, now: datetime) -> None:
    """The device's next order, in the caller's transaction. None orders nothing."""
    old = trustfiles.order_of(conn, device_pk)
    order = asdict(target) if target else {}
    if old is not None and old.order == order:
        return
    if target is not None:
        log.ordered(conn, target.deployment, target.path, target.length, target.sha256, target.mandatory, now)
    version = old.version + 1 if old else 1
    stamp = old.timestamp_version + 1 if old else 1
    trustfiles.set_order(conn, OrderRow(device_pk, version, stamp, order, now, now))


def withdraw(conn: Connection, device_pk: int, now: datetime) -> None:
    """Order nothing any more, if anything was ordered."""
    if trustfiles.order_of(conn, device_pk) is not None:
        assign(conn, device_pk, None, now)


def facts(conn: Connection, device_pk: int, product: str) -> dict[str, Any]:
    """The versions a check's answer carries, so that a device fetches only what it does not have."""
    order = trustfiles.order_of(conn, device_pk)
    versions = trustfiles.versions(conn, IMAGE)
    director = trustfiles.versions(conn, DIRECTOR)
    return {
        "order": order.version if order else 0,
        "role": versions.get(product, 0),
        "root_version": versions.get("root", 0),
        "director_root_version": director.get("root", 0),
        "delegation_version": versions.get("targets", 0),
    }


def renew(conn: Connection, device_pk: int, now: datetime) -> OrderRow:
    """The device's order, with fresh dates where half of a life is over. A device that was never ordered
    anything gets an empty order."""
    row = trustfiles.order_of(conn, device_pk)
    if row is None:
        assign(conn, device_pk, None, now)
        row = trustfiles.order_of(conn, device_pk)
        if row is None:
            raise AssertionError("written a line above, in this transaction")
    elif is_stale(row, now):
        version, issued = row.version, row.issued_at
        if now - issued > rule(DIRECTOR, "targets").life / 2:
            version, issued = version + 1, now
        row = OrderRow(device_pk, version, row.timestamp_version + 1, row.order, issued, now)
        trustfiles.set_order(conn, row)
    return row


def is_stale(row: OrderRow, now: datetime) -> bool:
    """Whether its timestamp should be signed anew."""
    return now - row.timestamp_at > rule(DIRECTOR, "timestamp").life / 2


def file(
    conn: Connection,
    row: OrderRow,
    device_id: str,
    filename: str,
    online: KeySigner,
    nonce: str | None = None,
) -> bytes:
    """One of the device's director files. Raises `Rejected` (not found) for a name that does not exist."""
    if filename.endswith(".root.json"):
        return _root(conn, filename)
    if filename == FRESH:
        return _targets(row, device_id, online, nonce, log.shown(conn))
    snapshot = _snapshot(row, device_id, online)
    made = {
        f"{row.version}.targets.json": lambda: _targets(row, device_id, online),
        f"{row.version}.snapshot.json": lambda: snapshot,
        "timestamp.json": lambda: _timestamp(row, device_id, snapshot, online),
    }
    if filename not in made:
        raise missing(filename)
    return made[filename]()


def missing(filename: str) -> Rejected:
    return Rejected(
        "unknown_file",
        f"file is {filename!r}: there is no such file",
        kind=Kind.NOT_FOUND,
        field="file",
        value=filename,
        rule="names a metadata file",
    )


def _root(conn: Connection, filename: str) -> bytes:
    number = filename.removesuffix(".root.json")
    found = None
    if number.isdecimal() and len(number) < 9:
        found = trustfiles.get(conn, DIRECTOR, "root", int(number))
    if found is None:
        raise missing(filename)
    return found.body


def _targets(
    row: OrderRow,
    device_id: str,
    online: KeySigner,
    nonce: str | None = None,
    shown: dict[str, Any] | None = None,
) -> bytes:
    ordered = {}
    if row.order:
        said = {
            "image": row.order["custom"],
            "device_id": device_id,
            "deployment": row.order["deployment"],
            "attempt": row.order["attempt"],
            "mandatory": row.order["mandatory"],
        }
        path = row.order["path"]
        ordered[path] = files.target(path, row.order["length"], row.order["sha256"], said)
    return files.sign(files.order(row.version, device_id, ordered, row.issued_at, nonce, shown), [online])


def _snapshot(row: OrderRow, device_id: str, online: KeySigner) -> bytes:
    made = files.snapshot(DIRECTOR, row.version, {"targets": row.version}, row.issued_at, device_id)
    return files.sign(made, [online])


def _timestamp(row: OrderRow, device_id: str, snapshot: bytes, online: KeySigner) -> bytes:
    number, at = row.timestamp_version, row.timestamp_at
    return files.sign(files.timestamp(DIRECTOR, number, row.version, snapshot, at, device_id), [online])
