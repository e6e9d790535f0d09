"""The two repositories as devices read them: files by name, fresh where freshness is their point."""

import re
from datetime import datetime

from skylift.engine import director, signing
from skylift.engine.online import OnlineKeys
from skylift.store import trustfiles
from skylift.store.db import Database
from skylift.store.devices import Device
from skylift.trust.roles import IMAGE

_FILE = re.compile(r"[0-9]{1,8}\.[A-Za-z0-9._-]{1,64}\.json", re.ASCII)


def image(database: Database, online: OnlineKeys, filename: str, now: datetime) -> bytes:
    """A file of the image repo; the timestamp is signed anew when half of its life is over."""
    if filename == "timestamp.json":
        with database.read() as conn:
            stale = signing.is_stale(conn, now)
        if stale:
            database.write(lambda conn: signing.freshen(conn, online, now))
        with database.read() as conn:
            stamp = trustfiles.latest(conn, IMAGE, "timestamp")
        if stamp is None:
            raise director.missing(filename)
        return stamp.body
    number, _, rest = filename.partition(".")
    role = rest.removesuffix(".json")
    found = None
    if _FILE.fullmatch(filename):
        with database.read() as conn:
            found = trustfiles.get(conn, IMAGE, role, int(number))
    if found is None:
        raise director.missing(filename)
    return found.body


def order(
    database: Database,
    online: OnlineKeys,
    device: Device,
    filename: str,
    now: datetime,
    nonce: str | None = None,
) -> bytes:
    """A file of one device's director repo, signed on demand. `nonce` is signed into `order.json`."""
    with database.read() as conn:
        row = trustfiles.order_of(conn, device.pk)
    if row is None or (filename in ("timestamp.json", director.FRESH) and director.is_stale(row, now)):
        row = database.write(lambda conn: director.renew(conn, device.pk, now))
    with database.read() as conn:
        online.check(conn)
        return director.file(conn, row, device.device_id, filename, online.director, nonce)
