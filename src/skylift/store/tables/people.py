"""People and their tokens, whom they tell, what waits to leave, what happened."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from skylift.store.tables.base import PK, Document, Instant, metadata

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
