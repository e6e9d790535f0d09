"""What was signed and published, what waits for signatures, every device's order, the transparency log."""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, LargeBinary, String, Table, Text

from skylift.store.tables.base import PK, Document, Instant, metadata

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
