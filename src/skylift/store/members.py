"""Who a deployment is for, over the whole fleet: counted and listed by the database, in one statement each.

A `Scope` is a selector, looked up; a `Want` is what a device must lack for the release to be something for
it. Together with a salt and the ends of phases they say who waits where (`core.bucket`).
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from skylift.core.bucket import SPAN, arcs
from skylift.core.lifecycle import UpdateState
from skylift.core.query import Query
from skylift.store.devices import ACTIVE
from skylift.store.queries import Condition, among, condition
from skylift.store.tables import deployment_devices, devices, floors, group_members, updates

_STREAM = 10_000  # rows fetched at a time
OUTSIDE = -1  # the phase of a place behind the last phase's end


@dataclass(frozen=True, slots=True)
class UpdatedBy:
    """The devices that a deployment brought from one version to another, and that still run the latter."""

    deployment: str
    from_version: str | None
    to_version: str
    kind: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Everyone, or whoever any of the rest names. `listed` are primary keys that are not stored yet;
    `of_deployment` names a stored list; `lists` are groups, `queries` live ones. Of those, `without` leaves
    out whoever any of its scopes names, and `within` keeps only whom it names; `floor` leaves out devices
    whose security floor, as they report it, is above it."""

    everyone: bool = False
    listed: tuple[int, ...] = ()
    of_deployment: str | None = None
    lists: tuple[str, ...] = ()
    queries: tuple[Query, ...] = ()
    updated_by: UpdatedBy | None = None
    without: tuple["Scope", ...] = ()
    within: "Scope | None" = None
    floor: int | None = None


@dataclass(frozen=True, slots=True)
class Want:
    """A release: its kind (image or config), its version, the device types it has something for."""

    kind: str
    version: str
    types: frozenset[str]


def by_phase(
    conn: Connection, scope: Scope, want: Want, salt: int, ends: Sequence[int], but: str | None = None
) -> tuple[dict[int, int], int]:
    """Devices that want the release, by the phase their place lies in (`OUTSIDE` behind the last), and how
    many of the scope do not want it. `but`: without those this deployment has offered something.

    No row leaves the database but the sums. One pass over the devices for all phases, one for the others.
    """
    belongs = sa.and_(_inside(conn, scope), _not_had(but))
    numbered = zip([*range(len(ends)), OUTSIDE], [-1, *ends], [*ends, SPAN - 1], strict=True)
    held = {number: _within(arcs(low, high, salt)) for number, low, high in numbered}
    sums = (sa.func.count().filter(inside) for inside in held.values())
    question = sa.select(*sums).select_from(devices).where(belongs, _wants(want))
    tally = dict(zip(held, map(int, conn.execute(question).one()), strict=True))
    if not tally[OUTSIDE]:
        del tally[OUTSIDE]
    everybody = sa.select(sa.func.count()).select_from(devices).where(belongs)
    return tally, int(conn.execute(everybody).scalar_one()) - sum(tally.values())


def places(conn: Connection, scope: Scope, want: Want, salt: int) -> "array[int]":
    """The places of the devices that want the release, in their order; eight bytes each."""
    question = sa.select(devices.c.h).where(_inside(conn, scope), _wants(want))
    rows = conn.execute(question.execution_options(yield_per=_STREAM))
    return array("q", sorted((h + salt) % SPAN for (h,) in rows))


def ids_between(
    conn: Connection, scope: Scope, want: Want, salt: int, ranges: Sequence[tuple[int, int]]
) -> Iterator[str]:
    """The names of those whose places lie in one of the ranges (low, high], streamed."""
    held = [arc for low, high in ranges for arc in arcs(low, high, salt)]
    question = sa.select(devices.c.device_id).where(_inside(conn, scope), _wants(want), _within(held))
    for (device_id,) in conn.execute(question.execution_options(yield_per=_STREAM)):
        yield device_id


def count(conn: Connection, scope: Scope) -> int:
    """How many devices it holds, whatever they run."""
    return int(
        conn.execute(sa.select(sa.func.count()).select_from(devices).where(_inside(conn, scope))).scalar_one()
    )


def inside(conn: Connection, scope: Scope) -> Condition:
    """For other questions over `devices`: active, and named by the scope."""
    return _inside(conn, scope)


def wanting(conn: Connection, scope: Scope, want: Want) -> Condition:
    """The same, and in want of the release."""
    return sa.and_(_inside(conn, scope), _wants(want))


def named(conn: Connection, scope: Scope) -> Condition:
    """Named by the scope, active or not."""
    return _belongs(conn, scope)


def _inside(conn: Connection, scope: Scope) -> Condition:
    return sa.and_(devices.c.status == ACTIVE, _belongs(conn, scope))


def _belongs(conn: Connection, scope: Scope) -> Condition:
    named = sa.true() if scope.everyone else sa.or_(sa.false(), *_named(conn, scope))
    gone = (sa.not_(_belongs(conn, one)) for one in scope.without)
    kept = () if scope.within is None else (_belongs(conn, scope.within),)
    low = () if scope.floor is None else (_at_most(scope.floor),)
    return sa.and_(named, *gone, *kept, *low)


def _at_most(floor: int) -> Condition:
    higher = sa.select(floors.c.device_pk).where(floors.c.floor > floor)
    return devices.c.pk.not_in(higher)


def _named(conn: Connection, scope: Scope) -> Iterator[Condition]:
    if scope.listed:
        yield among(conn, devices.c.pk, scope.listed)
    if scope.of_deployment is not None:
        stored = sa.select(deployment_devices.c.device_pk)
        yield devices.c.pk.in_(stored.where(deployment_devices.c.deployment_id == scope.of_deployment))
    if scope.lists:
        members = sa.select(group_members.c.device_pk)
        yield devices.c.pk.in_(members.where(group_members.c.group_id.in_(scope.lists)))
    for query in scope.queries:
        yield condition(conn, query)
    if scope.updated_by is not None:
        yield _was_updated(scope.updated_by)


def _was_updated(by: UpdatedBy) -> Condition:
    runs = devices.c.config_version if by.kind == "config" else devices.c.current_version
    completed = sa.select(updates.c.device_pk).where(
        updates.c.deployment_id == by.deployment,
        updates.c.state == UpdateState.COMPLETE.value,
        updates.c.from_version.is_not_distinct_from(by.from_version),
    )
    return sa.and_(runs == by.to_version, devices.c.pk.in_(completed))


def _wants(want: Want) -> Condition:
    have = devices.c.config_version if want.kind == "config" else devices.c.current_version
    return sa.and_(devices.c.device_type.in_(sorted(want.types)), have.is_distinct_from(want.version))


def _not_had(deployment: str | None) -> Condition:
    if deployment is None:
        return sa.true()
    had = sa.select(sa.literal(1)).where(
        updates.c.deployment_id == deployment, updates.c.device_pk == devices.c.pk
    )
    return sa.not_(had.exists())


def _within(held: Sequence[tuple[int, int]]) -> Condition:
    return sa.or_(sa.false(), *(devices.c.h.between(first, last) for first, last in held))
