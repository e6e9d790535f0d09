"""Groups: a list of devices, or a query that stays live."""

from datetime import datetime
from secrets import token_bytes

from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.ids import check_name, mint
from skylift.core.query import parse
from skylift.engine.waiting import recount_live
from skylift.store import deployments, devices, events, groups, members
from skylift.store.db import Connection
from skylift.store.groups import Group
from skylift.store.members import Scope

MAX_MEMBERS = 100_000  # named in one request


def create(
    conn: Connection,
    name: str,
    query: str | None,
    device_ids: list[str] | None,
    actor: str,
    now: datetime,
) -> str:
    """A new group; its id. Exactly one of `query` and `device_ids`."""
    check_name("name", name)
    if (query is None) == (device_ids is None):
        raise invalid("query", query, "exactly one of query and devices is needed")
    if groups.by_name(conn, name) is not None:
        raise Rejected(
            "group_exists",
            f"name is {name!r}: there is a group of that name",
            kind=Kind.CONFLICT,
            field="name",
            value=name,
            rule="a name no group has",
        )
    if query is not None:
        parse(query)
    group_id = mint("grp", now, token_bytes(5))
    kind = "list" if query is None else "query"
    groups.insert(conn, Group(group_id, name, kind, query, now))
    if device_ids:
        groups.add(conn, group_id, _pks(conn, "devices", device_ids))
    events.record(conn, actor, "group.create", group_id, {"name": name, "query": query}, now)
    return group_id


def _pks(conn: Connection, field: str, device_ids: list[str]) -> list[int]:
    if len(device_ids) > MAX_MEMBERS:
        raise invalid(field, len(device_ids), f"at most {MAX_MEMBERS} in one request")
    for number, device_id in enumerate(device_ids):
        check_name(f"{field}[{number}]", device_id)
    found = devices.by_ids(conn, device_ids)
    for number, device_id in enumerate(device_ids):
        if device_id not in found or found[device_id].status != devices.ACTIVE:
            raise Rejected(
                "unknown_device",
                f"{field}[{number}] is {device_id!r}: there is no such active device",
                field=f"{field}[{number}]",
                value=device_id,
                rule="names an enrolled device",
            )
    return [found[device_id].pk for device_id in dict.fromkeys(device_ids)]


def find(conn: Connection, name: str) -> Group:
    """By id or name, or `Rejected` (not found)."""
    found = groups.find(conn, name) or groups.by_name(conn, name)
    if found is None:
        raise Rejected(
            "unknown_group",
            f"group is {name!r}: there is no such group",
            kind=Kind.NOT_FOUND,
            field="group",
            value=name,
            rule="names a group",
        )
    return found


def change_members(
    conn: Connection, name: str, add: list[str], remove: list[str], actor: str, now: datetime
) -> None:
    """Add and take out; a query's members cannot be named."""
    group = find(conn, name)
    if group.kind != "list":
        raise invalid("group", name, "is a query: its members follow from it", code="not_a_list")
    had = len(groups.members(conn, group.id))
    groups.add(conn, group.id, _pks(conn, "add", add))
    for number, device_id in enumerate(remove):
        check_name(f"remove[{number}]", device_id)
    gone = devices.by_ids(conn, remove)
    groups.remove(conn, group.id, [device.pk for device in gone.values()])
    said = {"add": add[:100], "remove": sorted(gone)[:100], "added": len(add), "removed": len(gone)}
    events.record(conn, actor, "group.members", group.id, said, now, before={"members": had})
    recount_live(conn, now)


def delete(conn: Connection, name: str, actor: str, now: datetime) -> None:
    """Refused while a live deployment targets it."""
    group = find(conn, name)
    if user := deployments.uses_group(conn, group.id):
        raise Rejected(
            "group_in_use",
            f"group is {name!r}: {user} is live and targets it",
            kind=Kind.CONFLICT,
            field="group",
            value=name,
            rule="no live deployment targets it",
        )
    groups.delete(conn, group.id)
    before = {"name": group.name, "kind": group.kind, "query": group.query}
    events.record(conn, actor, "group.delete", group.id, {"name": group.name}, now, before=before)


def size(conn: Connection, group: Group) -> int:
    """How many devices it holds now. A query reads the whole fleet: for people, not for polls."""
    if group.kind == "list":
        return len(groups.members(conn, group.id))
    return size_of(conn, group.query or "")


def size_of(conn: Connection, query: str) -> int:
    """How many devices it would hold: reads the whole fleet, so never in a write that others wait behind."""
    return members.count(conn, Scope(queries=(parse(query),)))
