"""Releases, their artifacts, what is made of these, and how it travelled."""

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
    UniqueConstraint,
)

from skylift.store.tables.base import PK, Document, Instant, metadata

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
