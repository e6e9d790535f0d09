"""The tables, the same on SQLite and PostgreSQL.

The rules of the model (its correctness argument is in docs/decisions):

- A device holds one open slot (`devices.deployment_id`, `attempt`): at most one open update.
- Membership of a phase comes from the device's place (`core.bucket`): creating a deployment writes no
  row per device. A row in `updates` appears when a device is first offered something, and is history.
- `counters` change in the transaction of the move they count; `phases.waiting` counts the eligible
  devices that have no row yet.
- Instants are UTC microseconds in a BIGINT (`Instant` gives aware datetimes); documents are JSON text.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """An aware datetime as UTC microseconds: exact, sortable, equal on both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _US

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _US


class Document(TypeDecorator[Any]):
    """A JSON document as text, compact and with sorted keys."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


# SQLite gives its fast rowid only to INTEGER PRIMARY KEY; PostgreSQL wants 64 bits.
PK = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# --- the fleet -------------------------------------------------------------------------------------

devices = Table(
    "devices",
    metadata,
    Column("pk", PK, primary_key=True, autoincrement=True),
    Column("device_id", String(64), nullable=False, unique=True),
    Column("device_type", String(64), nullable=False),
    Column("h", BigInteger, nullable=False),  # core.bucket.device_hash
    Column("token_hash", String(64), nullable=False),  # SHA-256 of the device's token, hex
    Column("current_version", String(64)),
    Column("config_version", String(64)),
    Column("image_sha256", String(64)),  # of the image the device says it runs
    Column("labels", Document, nullable=False, default=dict),
    Column("status", String(16), nullable=False, default="active"),  # active | decommissioned
    Column("enrolled_at", Instant, nullable=False),
    # The open slot: at most one open update per device.
    Column("deployment_id", String(32)),
    Column("attempt", Integer),
    # A token is one device's. Nobody asks for tokens in their order: PostgreSQL's hash index finds one on two
    # pages where the tree has four, is a third as large, and keeps the rule too.
    UniqueConstraint("token_hash").ddl_if(dialect="sqlite"),
    ExcludeConstraint(("token_hash", "="), using="hash", name="ex_devices_token_hash").ddl_if(
        dialect="postgresql"
    ),
    # Holds all that a count of who waits asks for: for everyone it never reads the rows (`store.members`).
    Index("ix_devices_waiting", "device_type", "h", "status", "current_version", "config_version"),
    # A page of devices of one type, or of one version, in the order of their names (`store.looks`).
    Index("ix_devices_type_name", "device_type", "device_id"),
    Index("ix_devices_version_name", "current_version", "device_id"),
)

# Last contact, written behind. Bound to no row of `devices`: those are never deleted, and looking after each
# first contact's device, and locking it, cost PostgreSQL twice what writing the contact does.
seen = Table(
    "seen",
    metadata,
    Column("device_pk", PK, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
)

health = Table(  # what a device last said of its own health, written behind
    "health",
    metadata,
    Column(
        "device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("at", Instant, nullable=False),
    Column("healthy", Boolean),
    Column("metrics", Document, nullable=False, default=dict),
)

device_keys = Table(  # the key a device signs its reports with; devices without one have a token only
    "device_keys",
    metadata,
    Column(
        "device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("public", String(130), nullable=False),  # the uncompressed point, hex
    Column("previous", String(130)),  # good until the first signature by `public`
    Column("sequence", BigInteger, nullable=False),  # the highest of any signed report
)

certificates = Table(  # every one ever issued to a device
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), nullable=False),
    Column("authority", Integer, nullable=False),
    Column("public", String(130), nullable=False),
    Column("fingerprint", String(64), nullable=False, unique=True),  # SHA-256 of the DER
    Column("pem", Text, nullable=False),
    Column("issued_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    Column("reason", String(16), nullable=False, default=""),  # decommissioned | stolen | superseded
    Index(None, "device_pk"),
    Index(None, "public"),
    Index(None, "revoked_at"),
)

groups = Table(
    "groups",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("kind", String(8), nullable=False),  # list | query
    Column("query", Text),
    Column("created_at", Instant, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", String(32), ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column(
        "device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Index(None, "device_pk"),
)

# --- releases --------------------------------------------------------------------------------------

releases = Table(
    "releases",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("product", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("kind", String(8), nullable=False),  # image | config
    Column("notes", Text, nullable=False, default=""),
    Column("security_version", Integer, nullable=False, default=0),
    Column("status", String(16), nullable=False),  # draft | signing | published
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("published_at", Instant),
    Column("sbom", Document),  # the digest of its bill of materials, and what people see of it
    UniqueConstraint("product", "version"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("release_id", String(32), ForeignKey("releases.id", ondelete="CASCADE"), nullable=False),
    Column("device_type", String(64), nullable=False),
    Column("kind", String(8), nullable=False),  # full | delta | xz, zstd: the full image, packed
    Column("base_sha256", String(64), nullable=False, default=""),  # deltas: the exact image they start from
    Column("base_version", String(64), nullable=False, default=""),
    Column("sha256", String(64), nullable=False),  # of this file; its bytes are in the blob store
    Column("size", BigInteger, nullable=False),
    Column("facts", Document, nullable=False, default=dict),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("release_id", "device_type", "kind", "base_sha256"),
    Index(None, "sha256"),
)

pieces = Table(  # deltas and packed images that are made, could be, or were: the cache of `engine.workshop`
    "pieces",
    metadata,
    Column("pk", PK, primary_key=True, autoincrement=True),
    Column("release_id", String(32), ForeignKey("releases.id", ondelete="CASCADE"), nullable=False),
    Column("device_type", String(64), nullable=False),
    Column("kind", String(8), nullable=False),  # delta | xz | zstd
    Column("base_sha256", String(64), nullable=False, default=""),
    Column("base_version", String(64), nullable=False, default=""),
    Column("back", Boolean, nullable=False, default=False),  # to an older release
    Column("state", String(8), nullable=False),  # wanted | making | made | refused | failed | evicted
    Column("words", Text, nullable=False, default=""),  # why it is refused, or failed
    Column("devices", Integer, nullable=False, default=0),  # how many it serves: what is hot is made first
    Column("size", BigInteger),  # bytes, once it was made
    Column("sha256", String(64)),
    Column("seconds", Float),  # that making it took
    Column("attempts", Integer, nullable=False, default=0),
    Column("lease", String(32)),  # the fencing token of who makes it
    Column("due_at", Instant, nullable=False),  # not before
    Column("used_at", Instant),  # last offered, written behind
    Column("made_at", Instant),
    UniqueConstraint("release_id", "device_type", "kind", "base_sha256"),
    Index(None, "state", "due_at"),
    Index(None, "sha256"),
)

ways = Table(  # how updates got to devices, and why not otherwise; written behind
    "ways",
    metadata,
    Column("release_id", String(32), ForeignKey("releases.id", ondelete="CASCADE"), primary_key=True),
    Column("way", String(8), primary_key=True),  # core.ways.Way
    Column("reason", String(16), primary_key=True),  # core.ways.Passed; empty: it was taken
    Column("n", BigInteger, nullable=False),
)

means = Table(  # what devices give for an update, as they say
    "means",
    metadata,
    Column(
        "device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("memory", BigInteger),  # bytes, rounded down to a power of two
    Column("codecs", String(64), nullable=False),
)

# --- trust -----------------------------------------------------------------------------------------

trust_files = Table(  # every metadata file ever published; bytes exactly as signed
    "trust_files",
    metadata,
    Column("repo", String(16), primary_key=True),  # image | director
    Column("role", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    Column("published_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
)

trust_pending = Table(  # half-signed files of the image repo, one per role
    "trust_pending",
    metadata,
    Column("role", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),  # TUF metadata with the signatures gathered so far
    Column("release_ids", Document, nullable=False, default=list),
    Column("created_at", Instant, nullable=False),
)

floors = Table(  # the security floor a device last reported, where it is above 0
    "floors",
    metadata,
    Column(
        "device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("floor", BigInteger, nullable=False, index=True),
)

director_orders = Table(  # what each device's order says; its files are signed again on demand
    "director_orders",
    metadata,
    Column(
        "device_pk", PK, ForeignKey("devices.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("version", Integer, nullable=False),
    Column("timestamp_version", Integer, nullable=False),
    Column("order", Document, nullable=False),
    Column("issued_at", Instant, nullable=False),
    Column("timestamp_at", Instant, nullable=False),
)

log_entries = Table(  # the transparency log: everything published and ordered, never changed
    "log_entries",
    metadata,
    Column("number", PK, primary_key=True, autoincrement=False),
    Column("leaf", String(64), nullable=False, unique=True),  # core.merkle.leaf_hash
    Column("entry", Text, nullable=False),
    Column("at", Instant, nullable=False),
)

log_nodes = Table(  # the hashes of its complete subtrees
    "log_nodes",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
)

log_witnessed = Table(  # checkpoints that devices reported
    "log_witnessed",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", String(64), primary_key=True),
    Column("agrees", Boolean, nullable=False),  # it is this log's
    Column("reports", Integer, nullable=False),
    Column("device_pk", PK, nullable=False),  # who said so last
    Column("first_at", Instant, nullable=False),
    Column("last_at", Instant, nullable=False),
)

# --- deployments -----------------------------------------------------------------------------------

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

# --- people, side effects, memory ------------------------------------------------------------------

operator_tokens = Table(
    "operator_tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("name", String(64), nullable=False),
    Column("role", String(8), nullable=False),  # viewer | operator | admin
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    Column("scopes", Document),  # null: everything its role may do
    Column("products", Document),  # product -> role, where that is more than `role`
)

users = Table(  # people who sign in to the dashboard
    "users",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(8), nullable=False),  # viewer | operator | admin
    Column("password_hash", Text),  # argon2id; null: signs in elsewhere
    Column("totp_secret", String(64)),  # as an older version wrote it, in clear: sealed at the next start
    Column("totp_new", String(64)),
    Column("totp_step", BigInteger, nullable=False, default=0),  # of the last code: none is taken twice
    Column("failed", Integer, nullable=False, default=0),  # tries since the last that was right
    Column("blocked_until", Instant),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("signed_in_at", Instant),
    Column("disabled_at", Instant),
    Column("totp_sealed", Text),  # the secret of the second factor, where there is one (`trust.seal`)
    Column("totp_offered", Text),  # sealed too; offered, not yet proved
    Column("subject", Text),  # issuer and id at the OpenID provider, of who signs in there
    Column("products", Document),  # product -> role, where that is more than `role`
    Column("challenge", String(64)),  # SHA-256 of the last one given to a passkey
    Index("ix_users_subject", "subject", unique=True),
)

passkeys = Table(  # second factors that browsers hold
    "passkeys",
    metadata,
    Column("id", Text, primary_key=True),  # the credential's, base64url
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("public_key", Text, nullable=False),  # COSE, base64url
    Column("sign_count", BigInteger, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("used_at", Instant),
    Index(None, "user_id"),
)

sessions = Table(  # who is signed in, by the SHA-256 of what the browser holds
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("agent", String(200), nullable=False, default=""),  # what the browser calls itself
    Index(None, "user_id"),
)

channels = Table(  # where people are told: webhooks, mail, chats
    "channels",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("kind", String(8), nullable=False),  # webhook | mail | chat
    Column("address", Text, nullable=False),  # as people see it; of a chat without its secret path
    Column("sealed", Text, nullable=False),  # the whole address, the signing secrets (`trust.seal`)
    Column("template", Document),  # a chat's JSON
    Column("wants", Document),  # null: everything but chatter
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("disabled_at", Instant),
    Column("disabled_why", Text, nullable=False, default=""),
    Column("failures", Integer, nullable=False, default=0),  # since the last delivery that arrived
    Column("quiet_until", Instant),  # it did not answer: nothing is tried before
)

deliveries = Table(  # every message to a channel, and what came of it
    "deliveries",
    metadata,
    Column("pk", PK, primary_key=True, autoincrement=True),
    Column("channel_id", String(32), ForeignKey("channels.id", ondelete="CASCADE"), nullable=False),
    Column("message_id", String(32), nullable=False),  # the same at every try, and when it is sent again
    Column("type", String(32), nullable=False),  # core.telling.Told
    Column("body", Document, nullable=False),
    Column("state", String(12), nullable=False),  # waiting | delivered | given_up
    Column("attempts", Integer, nullable=False, default=0),
    Column("created_at", Instant, nullable=False),
    Column("tried_at", Instant),
    Column("answer", Text, nullable=False, default=""),
    Index(None, "channel_id", "pk"),
    Index(None, "created_at"),
)

claims = Table(  # enrollment: a claim token lets a device in
    "claims",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("device_type", String(64)),  # null: any
    Column("uses_left", Integer, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("revoked_at", Instant),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("actor", String(64), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Document, nullable=False),
    Column("created_at", Instant, nullable=False),
)

outbox = Table(  # side effects leave through here, at least once
    "outbox",
    metadata,
    Column("pk", PK, primary_key=True, autoincrement=True),
    Column("kind", String(24), nullable=False),
    Column("payload", Document, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("lease", String(32)),  # the fencing token of who works on it
    Column("done_at", Instant),
    Column("error", Text),
    Index(None, "done_at", "due_at"),
)

events = Table(  # what happened, for SSE and the time lines
    "events",
    metadata,
    Column("pk", PK, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("deployment_id", String(32)),
    Column("device_pk", PK),
    Column("kind", String(32), nullable=False),
    Column("data", Document, nullable=False),
    Index(None, "deployment_id", "pk"),
    Index(None, "device_pk", "pk"),
)

audit = Table(  # every change an operator made
    "audit",
    metadata,
    Column("pk", PK, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(48), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("data", Document, nullable=False),
    Column("before", Document),  # what stood there, where the change was of something
)

settings_kv = Table(  # small facts of this server: its salt, its generation of secrets
    "settings_kv",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Document, nullable=False),
)
