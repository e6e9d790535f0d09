"""Deployments, their phases, the updates of their devices, and what is counted of them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from skylift.store.tables.base import PK, Document, Instant, metadata

deployments = Table(
    "deployments",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("release_id", String(32), ForeignKey("releases.id"), nullable=False),
    Column("product", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("kind", String(8), nullable=False),  # of the release: image | config
    Column("config", Document, nullable=False),  # as the operator gave it
    Column(
        "selector", Document, nullable=False
    ),  # {"all": true} | {"devices": n} | {"groups": [..]} | {"updated_by": id}
    Column("salt", BigInteger, nullable=False),
    Column("mandatory", Boolean, nullable=False),
    Column("priority", Integer, nullable=False, default=0),
    Column("max_parallel", Integer),
    Column("window", Document),
    Column("threshold_percent", Float, nullable=False),
    Column("min_devices", Integer),
    Column("failure_action", String(8), nullable=False),
    Column("gate", String(12), nullable=False),  # threshold | statistical
    Column("false_alarm_rate", Float, nullable=False),
    Column("expected_percent", Float, nullable=False),
    Column("health_metrics", Document, nullable=False, default=list),
    Column("sets_updated", Integer, nullable=False, default=0),  # of `matches`, kept with them
    Column("sets_control", Integer, nullable=False, default=0),
    Column("status", String(16), nullable=False),
    Column("status_reason", Text, nullable=False, default=""),
    Column("paused_by", String(20)),
    Column("generation", Integer, nullable=False),
    Column("notes", Document, nullable=False, default=list),  # what the planner waits for, in its words
    Column("wake_at", Instant),
    Column("starts_at", Instant),
    Column("ends_at", Instant),
    Column("running_since", Instant),  # start or latest resume: offers' deadlines do not run while paused
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("deleted_at", Instant),  # gone for everybody who asks; its rows follow
    Column("rollback_of", String(32)),
    Column("approval_above", Integer),  # to more devices it needs a second person; null: never
    Column("approved_by", String(64)),
    Column("approved_at", Instant),
    Index(None, "status"),
)

deployment_devices = Table(  # the operator's own list, where ids were given
    "deployment_devices",
    metadata,
    Column("deployment_id", String(32), ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Index(None, "device_pk"),
)

phases = Table(
    "phases",
    metadata,
    Column("deployment_id", String(32), ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(64), nullable=False),
    Column("percent", Float),
    Column("count", Integer),
    Column("upto", BigInteger, nullable=False),  # last place, inclusive; a phase holds (previous upto, upto]
    Column("soak_s", Float, nullable=False),
    Column("wait_s", Float, nullable=False),
    Column("gate", String(8), nullable=False),
    Column("state", String(8), nullable=False),
    Column("promoted", Boolean, nullable=False, default=False),
    Column("opened_at", Instant),
    Column("finished_at", Instant),
    Column("waiting", Integer, nullable=False),  # eligible devices without a row
)

updates = Table(
    "updates",
    metadata,
    Column("deployment_id", String(32), ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("phase", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("reason", String(24), nullable=False, default=""),
    Column("message", Text, nullable=False, default=""),
    Column("progress", Integer, nullable=False, default=0),
    Column("from_version", String(64)),
    Column("from_sha256", String(64)),
    Column("offered_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("completed_at", Instant),
    Column("updated_at", Instant, nullable=False),
    Column("deadline_at", Instant),  # open states only
    Column("left_out", Boolean, nullable=False, default=False),  # of a cohort the deployment goes on without
    Index(None, "device_pk"),
    Index(None, "deadline_at"),
    # The latest failures of a deployment, however many devices it has (`updates.recent_failures`).
    Index(
        "ix_updates_failures",
        "deployment_id",
        "updated_at",
        sqlite_where=text("state IN ('failed', 'rolled_back')"),
        postgresql_where=text("state IN ('failed', 'rolled_back')"),
    ),
)

counters = Table(
    "counters",
    metadata,
    Column("deployment_id", String(32), ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True),
    Column("phase", Integer, primary_key=True, autoincrement=False),
    Column("state", String(32), primary_key=True),
    Column("n", Integer, nullable=False),
)

matches = Table(  # who is compared with whom: an updated device and devices of the control group
    "matches",
    metadata,
    Column("deployment_id", String(32), ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("updated_pk", PK, nullable=False),  # names the set: its updated device
    Column("begun_at", Instant, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("unhealthy", Boolean),  # null: no verdict yet, or none possible
    Column("closed", Boolean, nullable=False, default=False),
    Index(None, "closed", "due_at"),
)
