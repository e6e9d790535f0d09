"""How things look on the wire: rows and tallies as JSON objects. Reads only."""

from datetime import datetime
from typing import Any

from skylift.core.failure import rate_percent
from skylift.core.gate import evidence
from skylift.core.lifecycle import UpdateState
from skylift.core.telling import standing
from skylift.core.world import FailureGate, Phase
from skylift.engine import floors
from skylift.store import counters, deployments, devices, updates, world
from skylift.store.db import Connection
from skylift.store.devices import Device
from skylift.store.events import Event

_TALLY = ("waiting", *(state.value for state in UpdateState))


def instant(at: datetime | None) -> str | None:
    """ISO 8601 in UTC."""
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def deployment(conn: Connection, row: Any, *, whole: bool = True) -> dict[str, Any]:
    """A deployment: where it stands, why, what it waits for; with `whole` its phases and recent failures."""
    shown = {
        "id": row.id,
        "release": row.release_id,
        "product": row.product,
        "version": row.version,
        "kind": row.kind,
        "status": row.status,
        "status_reason": row.status_reason,
        "sentence": standing(row.product, row.version, row.status, row.status_reason),
        "paused_by": row.paused_by,
        "generation": row.generation,
        "mandatory": row.mandatory,
        "priority": row.priority,
        "failure_threshold_percent": row.threshold_percent,
        "failure_min_devices": row.min_devices,
        "failure_action": row.failure_action,
        "gate": row.gate,
        "rollback_of": row.rollback_of,
        "approval": _approval(row),
        "created_by": row.created_by,
        "created_at": instant(row.created_at),
        "starts_at": instant(row.starts_at),
        "started_at": instant(row.started_at),
        "finished_at": instant(row.finished_at),
        "ends_at": instant(row.ends_at),
    }
    if whole:
        shown |= _progress(conn, row)
    return shown


def _approval(row: Any) -> dict[str, Any] | None:
    """Who approved it, and above how many devices it takes a second person; null where it never does."""
    if row.approval_above is None:
        return None
    return {"above": row.approval_above, "by": row.approved_by, "at": instant(row.approved_at)}


def _progress(conn: Connection, row: Any) -> dict[str, Any]:
    counts, above = counters.of_deployment(conn, row.id), floors.skipped(conn, row)
    phases = [
        world.phase_view(phase, counts.get(phase.number, {})) for phase in deployments.phases_of(conn, row.id)
    ]
    totals = {name: sum(getattr(phase.tally, name) for phase in phases) for name in _TALLY}
    failures = [
        {
            "device_id": failed.device_id,
            "state": failed.state,
            "reason": failed.reason,
            "message": failed.message,
            "at": instant(failed.updated_at),
        }
        for failed in updates.recent_failures(conn, row.id)
    ]
    return {
        "config": row.config,
        "notes": row.notes,
        "gate_state": _gate(conn, row),
        "without": [cohort["text"] for cohort in row.selector.get("without", ())],
        "above_floor": above and floors.view(above),
        "left_out": sum(counts.get(counters.OUTSIDE, {}).get(state.value, 0) for state in UpdateState),
        "devices": sum(phase.tally.size for phase in phases),
        "totals": totals,
        "phases": [_phase(phase) for phase in phases],
        "recent_failures": failures,
    }


def _gate(conn: Connection, row: Any) -> dict[str, Any] | None:
    """Where the statistical gate stands; null with a plain threshold."""
    seen = world.load_world(conn, row.id) if row.gate == FailureGate.STATISTICAL.value else None
    if seen is None:
        return None
    return {
        "evidence": evidence(seen),
        "stops_at": 1 / row.false_alarm_rate,
        "false_alarm_rate": row.false_alarm_rate,
        "expected_failure_percent": row.expected_percent,
        "health_metrics": row.health_metrics,
        "sets_updated": row.sets_updated,
        "sets_control": row.sets_control,
    }


def _phase(phase: Phase) -> dict[str, Any]:
    return {
        "number": phase.number,
        "name": phase.name,
        "state": phase.state.value,
        "gate": phase.gate.value,
        "promoted": phase.promoted,
        "size": phase.tally.size,
        "failure_rate_percent": rate_percent(phase.tally),
        "opened_at": instant(phase.opened_at),
        "finished_at": instant(phase.finished_at),
        "tally": {name: getattr(phase.tally, name) for name in _TALLY},
    }


def update(row: Any) -> dict[str, Any]:
    """One device's run through one deployment: the user's `DeviceUpdateStatus`, and more."""
    return {
        "device_id": row.device_id,
        "state": row.state,
        "progress": row.progress,
        "reason": row.reason or None,
        "error_message": row.message or None,
        "attempt": row.attempt,
        "phase": row.phase,
        "from_version": row.from_version,
        "offered_at": instant(row.offered_at),
        "started_at": instant(row.started_at),
        "completed_at": instant(row.completed_at),
    }


def device(found: Device, seen: datetime | None) -> dict[str, Any]:
    return {
        "device_id": found.device_id,
        "device_type": found.device_type,
        "current_version": found.current_version,
        "config_version": found.config_version,
        "image_sha256": found.image_sha256,
        "labels": dict(found.labels),
        "status": found.status,
        "enrolled_at": instant(found.enrolled_at),
        "last_seen": instant(seen),
        "deployment": found.deployment_id,
    }


def device_list(conn: Connection, found: list[Device]) -> list[dict[str, Any]]:
    seen = devices.last_seen(conn, [one.pk for one in found])
    return [device(one, seen.get(one.pk)) for one in found]


def health(said: Any) -> dict[str, Any] | None:
    """A device's last word of health."""
    if said is None:
        return None
    return {"at": instant(said.at), "healthy": said.healthy, "metrics": said.metrics}


def event(found: Event) -> dict[str, Any]:
    return {
        "id": found.pk,
        "at": instant(found.at),
        "kind": found.kind,
        "deployment": found.deployment_id,
        "data": found.data,
    }
