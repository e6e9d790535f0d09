"""Security floors as devices report them: the highest security_version each has confirmed. Only those above 0
have a row."""

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.store.bulk import Statement
from skylift.store.members import Scope, Want, wanting
from skylift.store.tables import devices, floors

_SET = Statement(
    """
    INSERT INTO floors (device_pk, floor) SELECT * FROM {rows} WHERE true
    ON CONFLICT (device_pk) DO UPDATE SET floor = excluded.floor WHERE floors.floor <> excluded.floor
    """,
    ("bigint", "bigint"),
)
NAMED = 20  # devices above a floor that are named, of however many


class Above(NamedTuple):
    """Devices that would refuse a release: how many, the first by name, the highest of their floors."""

    many: int = 0
    names: tuple[str, ...] = ()
    highest: int = 0


_DROP = Statement("DELETE FROM floors WHERE device_pk IN (SELECT a FROM {rows})", ("bigint",))


def set_floors(conn: Connection, said: Mapping[int, int]) -> int:
    """What devices (by key) say: they know best, also after they were reset. How many have another now."""
    dropped = _DROP.run(conn, [(pk,) for pk, floor in said.items() if floor == 0])
    return dropped + _SET.run(conn, [(pk, floor) for pk, floor in said.items() if floor > 0])


def floor_of(conn: Connection, device_pk: int) -> int:
    found = conn.execute(sa.select(floors.c.floor).where(floors.c.device_pk == device_pk)).scalar()
    return int(found or 0)


def above(conn: Connection, scope: Scope, want: Want, security_version: int) -> Above:
    """Devices that the release is for and that would refuse it."""
    if (
        conn.execute(sa.select(floors.c.floor).where(floors.c.floor > security_version).limit(1)).first()
        is None
    ):
        return Above()
    whose = floors.join(devices, devices.c.pk == floors.c.device_pk)
    refuses = sa.and_(floors.c.floor > security_version, wanting(conn, scope, want))
    counted = sa.select(sa.func.count(), sa.func.max(floors.c.floor)).select_from(whose).where(refuses)
    many, highest = conn.execute(counted).one()
    listed = sa.select(devices.c.device_id).select_from(whose).where(refuses).order_by(devices.c.device_id)
    names = conn.execute(listed.limit(NAMED)).scalars()
    return Above(int(many), tuple(names), int(highest or 0))
