"""Cohorts: a part of a deployment's devices, named by what they have in common.

`label.hw=rev-b`, `current_version=1.0.0`, any query of `core.query`, or `group=NAME`. A device belongs by
what it was when it was offered the update: `current_version` is the version it came from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skylift.core.errors import Rejected
from skylift.core.query import Facts, matches, parse, settled
from skylift.store import deployments, groups
from skylift.store.db import Connection
from skylift.store.devices import Device
from skylift.store.members import Scope

GROUP = "group="


@dataclass(frozen=True, slots=True)
class Cohort:
    """`text` as the operator wrote it; `group` is the id of a group, where it names one."""

    text: str
    group: str | None = None

    def dump(self) -> dict[str, str]:
        """As a deployment's selector keeps it."""
        return {"text": self.text} | ({"group": self.group} if self.group else {})


def load(stored: dict[str, Any]) -> Cohort:
    return Cohort(stored["text"], stored.get("group"))


def read(conn: Connection, field: str, text: str) -> Cohort:
    """The cohort of these words. Raises `Rejected` for a query that is none, and for an unknown group."""
    if text.startswith(GROUP):
        name = text.removeprefix(GROUP)
        group = groups.find(conn, name) or groups.by_name(conn, name)
        if group is None:
            raise Rejected(
                "unknown_group",
                f"{field} is {text!r}: there is no such group",
                field=field,
                value=text,
                rule="names a group",
            )
        return Cohort(text, group.id)
    parse(text)
    return Cohort(text)


def member_of(conn: Connection, cohort: Cohort) -> Callable[[Device, str, str | None], bool]:
    """`belongs(device, kind, version)`: whether a device that had this version of this kind (image or config)
    belongs. A group by list is read once, here."""
    query = cohort.text
    if cohort.group is not None:
        group = groups.find(conn, cohort.group)
        if group is None:
            return lambda device, kind, version: False
        if group.kind == "list":
            members = groups.members(conn, group.id)
            return lambda device, kind, version: device.pk in members
        query = group.query or ""
    parsed = parse(query)
    return lambda device, kind, version: matches(parsed, facts_then(device, kind, version))


def facts_then(device: Device, kind: str, version: str | None) -> Facts:
    """What a query may look at, with the version the device had then."""
    current, config = device.current_version, device.config_version
    versions = (current, version) if kind == "config" else (version, config)
    return Facts(device.device_id, device.device_type, *versions, device.labels)


def is_left_out(conn: Connection, selector: dict[str, Any], device: Device) -> bool:
    """Whether a deployment with this selector goes on without this device, as it is now."""
    return any(_holds(conn, load(stored), device) for stored in selector.get("without", ()))


def _holds(conn: Connection, cohort: Cohort, device: Device) -> bool:
    if cohort.group is not None:
        group = groups.find(conn, cohort.group)
        if group is not None and group.kind == "list":
            return deployments.is_member(conn, [group.id], device.pk)
    return member_of(conn, cohort)(device, "image", device.current_version)


def scope(conn: Connection, cohort: Cohort, kind: str = "", version: str | None = None) -> Scope:
    """The cohort for questions over the fleet: as its devices are now, or, given a kind (image or config), as
    they were when they had this version of it."""
    query = cohort.text
    if cohort.group is not None:
        group = groups.find(conn, cohort.group)
        if group is None:
            return Scope()
        if group.kind == "list":
            return Scope(lists=(group.id,))
        query = group.query or ""
    parsed = parse(query)
    field = {"config": "config_version", "image": "current_version"}.get(kind)
    return Scope(queries=(parsed if field is None else settled(parsed, field, version),))
