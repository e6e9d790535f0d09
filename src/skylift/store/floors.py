"""Security floors as devices report them: the highest security_version each has confirmed. Only those above 0
have a row."""

from collections.abc import Mapping

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
_DROP = Statement("DELETE FROM floors WHERE device_pk IN (SELECT a FROM {rows})", ("bigint",))


def set_floors(conn: Connection, said: Mapping[int, int]) -> None:
    """What devices (by key) say: they know best, also after they were reset."""
    _DROP.run(conn, [(pk,) for pk, floor in said.items() if floor == 0])
    _SET.run(conn, [(pk, floor) for pk, floor in said.items() if floor > 0])


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
