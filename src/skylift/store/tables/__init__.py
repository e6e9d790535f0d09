"""The tables, the same on SQLite and PostgreSQL.

The rules of the model (its correctness argument is in docs/decisions):

- A device holds one open slot (`devices.deployment_id`, `attempt`): at most one open update.
- Membership of a phase comes from the device's place (`core.bucket`): creating a deployment writes no
  row per device. A row in `updates` appears when a device is first offered something, and is history.
- `counters` change in the transaction of the move they count; `phases.waiting` counts the eligible
  devices that have no row yet.
- Instants are UTC microseconds in a BIGINT (`Instant` gives aware datetimes); documents are JSON text.
"""

from skylift.store.tables.base import Document, Instant, metadata
from skylift.store.tables.deployment import (
    counters,
    deployment_devices,
    deployments,
    matches,
    phases,
    updates,
)
from skylift.store.tables.fleet import certificates, device_keys, devices, group_members, groups, health, seen
from skylift.store.tables.people import (
    audit,
    channels,
    claims,
    deliveries,
    events,
    idempotency,
    operator_tokens,
    outbox,
    passkeys,
    sessions,
    settings_kv,
    users,
)
from skylift.store.tables.release import artifacts, means, pieces, releases, ways
from skylift.store.tables.trust import (
    director_orders,
    floors,
    log_entries,
    log_nodes,
    log_witnessed,
    trust_files,
    trust_pending,
)

__all__ = [
    "Document",
    "Instant",
    "artifacts",
    "audit",
    "certificates",
    "channels",
    "claims",
    "counters",
    "deliveries",
    "deployment_devices",
    "deployments",
    "device_keys",
    "devices",
    "director_orders",
    "events",
    "floors",
    "group_members",
    "groups",
    "health",
    "idempotency",
    "log_entries",
    "log_nodes",
    "log_witnessed",
    "matches",
    "means",
    "metadata",
    "operator_tokens",
    "outbox",
    "passkeys",
    "phases",
    "pieces",
    "releases",
    "seen",
    "sessions",
    "settings_kv",
    "trust_files",
    "trust_pending",
    "updates",
    "users",
    "ways",
]
