"""Create a deployment. What is done to it afterwards is `engine.verbs`.

Creating resolves the targets in one streaming scan that counts, and writes O(phases) rows.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import randbits, token_bytes
from typing import Any

from skylift.core.bucket import SPAN, upto
from skylift.core.errors import Kind, Rejected, invalid
from skylift.core.ids import mint
from skylift.core.lifecycle import DeploymentStatus
from skylift.core.rollout import DeploymentConfig, PhaseConfig, expand, parse
from skylift.engine import floors, select
from skylift.store import (
    deployments,
    devices,
    events,
    groups,
    members,
    outbox,
    releases,
)
from skylift.store.db import Connection
from skylift.store.deployments import NewPhase
from skylift.store.floors import Above
from skylift.store.members import Want

# Up to here percentages are exact shares of the fleet as it is (3 of 24, not "about 2.4"); above, a share of
# the places is exact enough and needs no list in memory.
MAX_LIVE = 1_000  # deployments: a poll that considers them all takes a millisecond
EXACT_UP_TO = 100_000


@dataclass(frozen=True, slots=True)
class Count:
    """Who a deployment would touch. `skipped`: selected, but already there or nothing for their type.
    `above`: would refuse it, by their security floor."""

    total: int
    skipped: int
    phases: tuple[NewPhase, ...]
    above: Above

    def view(self) -> dict[str, Any]:
        return {
            "devices": self.total,
            "skipped": self.skipped,
            "above_floor": floors.view(self.above),
            "phases": [
                {
                    "name": phase.config.name or f"phase {number + 1}",
                    "percent": phase.config.percent,
                    "count": phase.config.count,
                    "devices": phase.waiting,
                    "min_minutes": phase.config.min_minutes,
                    "gate": phase.config.gate.value,
                }
                for number, phase in enumerate(self.phases)
            ],
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """A deployment that could be made: everything about it that takes a look over the fleet."""

    given: Mapping[str, Any]
    config: DeploymentConfig
    release: Any
    selector: select.Selector
    listed: tuple[int, ...]
    salt: int
    count: Count


def prepare(
    conn: Connection,
    body: Mapping[str, Any],
    *,
    selector: select.Selector | None = None,
    salt: int | None = None,
) -> Prepared:
    """Count and cut; writes nothing, so that a reader's snapshot will do. `selector` overrides the targets
    (rollback); without a `salt` it is drawn."""
    config = parse(body)
    release = find_release(conn, config)
    listed: set[int] = set()
    if selector is None:
        selector, listed = _selector(conn, config)
    above = floors.above(conn, release, select.scope(conn, None, selector, listed))
    if config.skip_above_floor:
        selector = {**selector, select.FLOOR: release.security_version}
    salt = randbits(63) if salt is None else salt
    count = _count(conn, release, selector, listed, expand(config), salt, above)
    return Prepared(body, config, release, selector, tuple(sorted(listed)), salt, count)


def preview(conn: Connection, body: Mapping[str, Any]) -> dict[str, Any]:
    """What `create` would do: device counts per phase, or its refusal; writes nothing."""
    prepared = prepare(conn, body)
    if not prepared.config.skip_above_floor:
        floors.refuse(prepared.release, prepared.count.above)
    return prepared.count.view()


def create(
    conn: Connection,
    body: Mapping[str, Any],
    actor: str,
    now: datetime,
    *,
    selector: select.Selector | None = None,
    rollback_of: str | None = None,
) -> str:
    """`prepare` and `insert` in one transaction."""
    return insert(conn, prepare(conn, body, selector=selector), actor, now, rollback_of=rollback_of)


def insert(
    conn: Connection,
    prepared: Prepared,
    actor: str,
    now: datetime,
    *,
    rollback_of: str | None = None,
    approval_above: int | None = None,
) -> str:
    """A new deployment, scheduled (or a draft); its id. O(phases) rows; who joined since it was prepared is
    counted soon. To more than `approval_above` devices it waits for a second person."""
    config, count = prepared.config, prepared.count
    release = find_release(conn, config)
    if not count.total:
        raise nobody(release, count, prepared.given)
    above = count.above
    if not config.skip_above_floor:  # looked at once more: it may have been prepared a while ago
        scope = select.scope(conn, None, prepared.selector, set(prepared.listed))
        floors.refuse(release, floors.above(conn, release, scope))
    if rollback_of is None:  # a way back is never refused
        _room(conn)
    deployment_id = mint("dep", now, token_bytes(5))
    status = DeploymentStatus.DRAFT if config.draft else DeploymentStatus.SCHEDULED
    begins = max(now, config.starts_at or now)
    deployments.insert(
        conn,
        deployment_id,
        release,
        config,
        dict(prepared.given),
        prepared.selector,
        prepared.salt,
        count.phases,
        actor=actor,
        status=status,
        ends_at=begins + timedelta(minutes=config.lifetime_minutes),
        rollback_of=rollback_of,
        approval_above=approval_above,
        now=now,
    )
    if prepared.listed:
        deployments.list_devices(conn, deployment_id, prepared.listed)
    outbox.put(conn, "recount", {"deployment": deployment_id}, now)
    said: dict[str, Any] = {"status": status.value, "version": release.version, "devices": count.total}
    if config.skip_above_floor:
        said["above_floor"] = floors.view(above)
    events.say(conn, "deployment", said, now, deployment_id=deployment_id)
    events.record(conn, actor, "deployment.create", deployment_id, dict(prepared.given), now)
    return deployment_id


def _room(conn: Connection) -> None:
    """Every check looks at every live deployment: there is a limit to how many that may be."""
    live = len(deployments.live_ids(conn))
    if live >= MAX_LIVE:
        raise Rejected(
            "too_many_deployments",
            f"deployments is {live} live ones: at most {MAX_LIVE}; abort some, or wait for their end",
            kind=Kind.CONFLICT,
            field="deployments",
            value=live,
            rule=f"at most {MAX_LIVE} scheduled, running or paused",
        )


def nobody(release: Any, count: Count, body: Mapping[str, Any]) -> Rejected:
    """The targets hold no device that needs the release."""
    return Rejected(
        "no_devices",
        f"target_devices selects nobody to update to {release.product} {release.version}: "
        f"{count.skipped} selected devices already run it or have no image in it"
        + (f", {count.above.many} are above its security floor" if count.above.many else ""),
        field="target_devices",
        value=body.get("target_devices", body.get("target_groups")),
        rule="selects at least one device that needs this release",
    )


def find_release(conn: Connection, config: DeploymentConfig) -> Any:
    """The published release the config names, by id or by version (and product, where two have it)."""
    if config.release:
        found = releases.find(conn, config.release)
        named = ("release", config.release)
        matches = [found] if found else []
    else:
        named = ("firmware_version", config.firmware_version)
        matches = releases.by_version(conn, config.firmware_version, config.product or None)
    if not matches:
        raise Rejected(
            "unknown_release",
            f"{named[0]} is {named[1]!r}: there is no such release",
            kind=Kind.NOT_FOUND,
            field=named[0],
            value=named[1],
            rule="names a release",
        )
    if len(matches) > 1:
        products = ", ".join(sorted(row.product for row in matches))
        raise invalid("product", config.product, f"needed: {config.firmware_version} exists for {products}")
    if matches[0].status in (releases.WITHDRAWING, releases.WITHDRAWN):
        raise Rejected(
            "release_withdrawn",
            f"{named[0]} is {named[1]!r}: the release was withdrawn",
            kind=Kind.CONFLICT,
            field=named[0],
            value=named[1],
            rule="a release that stands",
        )
    if matches[0].status != "published":
        raise Rejected(
            "release_not_signed",
            f"{named[0]} is {named[1]!r}: the release is {matches[0].status}, not yet signed by enough keys",
            kind=Kind.CONFLICT,
            field=named[0],
            value=named[1],
            rule="a published release: signed by the threshold of its release keys",
        )
    return matches[0]


def _selector(conn: Connection, config: DeploymentConfig) -> tuple[select.Selector, set[int]]:
    """The targets as stored, and the operator's list as primary keys."""
    if config.target_devices == "all":
        return {"all": True}, set()
    selector: select.Selector = {}
    listed: set[int] = set()
    if config.target_devices:
        found = devices.by_ids(conn, config.target_devices)
        for number, device_id in enumerate(config.target_devices):
            if device_id not in found or found[device_id].status != devices.ACTIVE:
                raise Rejected(
                    "unknown_device",
                    f"target_devices[{number}] is {device_id!r}: there is no such active device",
                    field=f"target_devices[{number}]",
                    value=device_id,
                    rule="names an enrolled device",
                )
        selector["devices"] = True
        listed = {device.pk for device in found.values()}
    if config.target_groups:
        selector["groups"] = [_group(conn, n, name) for n, name in enumerate(config.target_groups)]
    return selector, listed


def _group(conn: Connection, number: int, name: str) -> str:
    group = groups.find(conn, name) or groups.by_name(conn, name)
    if group is None:
        raise Rejected(
            "unknown_group",
            f"target_groups[{number}] is {name!r}: there is no such group",
            field=f"target_groups[{number}]",
            value=name,
            rule="names a group",
        )
    return str(group.id)


def _count(
    conn: Connection,
    release: Any,
    selector: select.Selector,
    listed: set[int],
    phases: tuple[PhaseConfig, ...],
    salt: int,
    above: Above,
) -> Count:
    """How many devices need it, and where each phase's places end."""
    scope = select.scope(conn, None, selector, listed)
    want = Want(release.kind, release.version, deployments.device_types(conn, release.id))
    ends = [SPAN - 1 if phase.percent is None else upto(phase.percent) for phase in phases]
    tally, skipped = members.by_phase(conn, scope, want, salt, ends)
    if sum(tally.values()) > EXACT_UP_TO and not any(phase.count for phase in phases):
        cut = tuple(NewPhase(phase, ends[n], tally[n]) for n, phase in enumerate(phases))
    else:
        cut = _cut(members.places(conn, scope, want, salt), phases)
    return Count(sum(phase.waiting for phase in cut), skipped, cut, above)


def _cut(places: Sequence[int], phases: tuple[PhaseConfig, ...]) -> tuple[NewPhase, ...]:
    """Where each phase ends among the sorted places. The last phase, 100 percent, holds every place that is
    left; with a count it holds that many, and devices beyond it are not part of the deployment."""
    made, taken = [], 0
    for number, phase in enumerate(phases):
        if phase.count is not None:
            end, last = _at(places, taken + phase.count)
        elif number == len(phases) - 1:
            end, last = len(places), SPAN - 1
        elif len(places) <= EXACT_UP_TO:
            end, last = _at(places, -(-len(places) * (phase.percent or 0) // 100))
        else:
            last = upto(phase.percent or 0)
            end = bisect_right(places, last)
        end = max(end, taken)
        made.append(NewPhase(phase, last, end - taken))
        taken = end
    return tuple(made)


def _at(places: Sequence[int], wanted: float) -> tuple[int, int]:
    """The end after `wanted` devices, and the place of the last of them."""
    end = min(len(places), int(wanted))
    return end, places[end - 1] if end else -1
