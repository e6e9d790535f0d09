"""Security floors as devices report them: the highest security_version each has confirmed. Only those above 0
have a row."""

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.members import Scope, Want, wanting
from skylift.store.tables import devices, floors


def set_floor(conn: Connection, device_pk: int, floor: int) -> None:
    """What the device says: it knows best, also after it was reset."""
    conn.execute(sa.delete(floors).where(floors.c.device_pk == device_pk))
    if floor > 0:
        conn.execute(sa.insert(floors).values(device_pk=device_pk, floor=floor))


def floor_of(conn: Connection, device_pk: int) -> int:
    found = conn.execute(sa.select(floors.c.floor).where(floors.c.device_pk == device_pk)).scalar()
    return int(found or 0)


def above(conn: Connection, scope: Scope, want: Want, security_version: int) -> tuple[int, str | None, int]:
    """Devices that the release is for and that would refuse it: how many, one of them, the highest floor."""
    if (
        conn.execute(sa.select(floors.c.floor).where(floors.c.floor > security_version).limit(1)).first()
        is None
    ):
        return 0, None, 0
    row = conn.execute(
        sa.select(sa.func.count(), sa.func.min(devices.c.device_id), sa.func.max(floors.c.floor))
        .select_from(floors.join(devices, devices.c.pk == floors.c.device_pk))
        .where(floors.c.floor > security_version, wanting(conn, scope, want))
    ).one()
    return int(row[0]), row[1], int(row[2] or 0)
