"""Devices and what is known of each: last contact, health, keys, certificates; the groups they are in."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from skylift.store.tables.base import PK, Document, Instant, metadata

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
    # A page of devices of one type in the order of their names (`store.looks`).
    Index("ix_devices_type_name", "device_type", "device_id"),
    # None on anything that an update changes (versions, digest, slot): PostgreSQL would enter the row anew
    # into all the others, too, SQLite would write a page more for each report, so far do entries of a million
    # devices lie apart. Who asks by version reads the table, a million rows in 0.15 s.
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
