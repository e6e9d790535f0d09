"""Who belongs to a deployment: a selector, evaluated for one device at a poll, or a `Scope` over the fleet.

Selectors as stored: `{"all": true}`, `{"devices": true}` (the operator's list is in its own table),
`{"groups": [ids]}` (evaluated live: a device that joins later belongs), `{"updated_by": id, "from": version,
"to": version, "kind": kind}` (the devices a deployment updated and that still run what it brought; what a
rollback is made of; `"only"`: of one cohort). `"without"` lists cohorts that are left out of any of them,
`"floor"` leaves out devices whose security floor is above that.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from skylift.core.query import Facts, Query, matches, parse
from skylift.engine import cohorts
from skylift.store import deployments, floors, groups
from skylift.store.db import Connection
from skylift.store.devices import Device
from skylift.store.members import Scope, UpdatedBy

Selector = dict[str, Any]
FLOOR = "floor"


def facts(device: Device) -> Facts:
    """What a group query may look at."""
    return Facts(
        device.device_id, device.device_type, device.current_version, device.config_version, device.labels
    )


def selects(conn: Connection, deployment_id: str, selector: Selector, device: Device) -> bool:
    """Whether this device belongs, by at most a few indexed reads."""
    if cohorts.is_left_out(conn, selector, device) or _is_above(conn, selector, device):
        return False
    if selector.get("all"):
        return True
    if selector.get("devices") and deployments.is_listed(conn, deployment_id, device.pk):
        return True
    if "updated_by" in selector:
        return (
            _runs_it(selector, device)
            and deployments.was_updated_by(conn, selector["updated_by"], device.pk, selector["from"])
            and _only(conn, selector)(device)
        )
    lists, queries = _split(conn, selector)
    if any(matches(query, facts(device)) for query in queries):
        return True
    return bool(lists) and deployments.is_member(conn, lists, device.pk)


def _is_above(conn: Connection, selector: Selector, device: Device) -> bool:
    return FLOOR in selector and floors.floor_of(conn, device.pk) > selector[FLOOR]


def _only(conn: Connection, selector: Selector) -> Callable[[Device], bool]:
    """Whether a device that was updated is of the cohort that goes back."""
    if "only" not in selector:
        return lambda device: True
    belongs = cohorts.member_of(conn, cohorts.load(selector["only"]))
    return lambda device: belongs(device, selector["kind"], selector["from"])


def _runs_it(selector: Selector, device: Device) -> bool:
    """Whether the device still runs what the deployment brought: what went on to something else stays."""
    have = device.config_version if selector["kind"] == "config" else device.current_version
    return bool(have == selector["to"])


def scope(
    conn: Connection, deployment_id: str | None, selector: Selector, listed: set[int] | None = None
) -> Scope:
    """The selector for questions over the fleet. `listed` stands in for the stored list before creation."""
    whom = _whom(conn, deployment_id, selector, listed)
    return replace(whom, without=_without(conn, selector), floor=selector.get(FLOOR))


def _whom(conn: Connection, deployment_id: str | None, selector: Selector, listed: set[int] | None) -> Scope:
    if selector.get("all"):
        return Scope(everyone=True)
    if "updated_by" in selector:
        by = UpdatedBy(selector["updated_by"], selector["from"], selector["to"], selector["kind"])
        only = cohorts.load(selector["only"]) if "only" in selector else None
        within = cohorts.scope(conn, only, by.kind, by.from_version) if only is not None else None
        return Scope(updated_by=by, within=within)
    lists, queries = _split(conn, selector)
    stored = deployment_id if selector.get("devices") and listed is None else None
    named = tuple(sorted(listed or ()))
    return Scope(listed=named, of_deployment=stored, lists=tuple(lists), queries=tuple(queries))


def _without(conn: Connection, selector: Selector) -> tuple[Scope, ...]:
    """The cohorts that are left out, as their devices are now."""
    return tuple(cohorts.scope(conn, cohorts.load(stored)) for stored in selector.get("without", ()))


def _split(conn: Connection, selector: Selector) -> tuple[list[str], list[Query]]:
    """The selector's groups as ids of lists and parsed live queries."""
    lists, queries = [], []
    for group_id in selector.get("groups", ()):
        group = groups.find(conn, group_id)
        if group is None:
            continue  # deleted since: selects nobody
        if group.kind == "query":
            queries.append(parse(group.query or ""))
        else:
            lists.append(group.id)
    return lists, queries
