"""Deltas and packed images as a cache; how updates travel; what devices give for them."""

import sqlalchemy as sa
from alembic import op

revision = "0018_ways"
down_revision = "0017_product_roles"
branch_labels = None
depends_on = None

_PK = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "pieces",
        sa.Column("pk", _PK, autoincrement=True, nullable=False),
        sa.Column("release_id", sa.String(32), nullable=False),
        sa.Column("device_type", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("base_sha256", sa.String(64), nullable=False),
        sa.Column("base_version", sa.String(64), nullable=False),
        sa.Column("back", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.String(64), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease", sa.String(32), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.Column("made_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name=op.f("fk_pieces_release_id_releases"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pk", name=op.f("pk_pieces")),
        sa.UniqueConstraint(
            "release_id",
            "device_type",
            "kind",
            "base_sha256",
            name=op.f("uq_pieces_release_id_device_type_kind_base_sha256"),
        ),
    )
    op.create_index(op.f("ix_pieces_state_due_at"), "pieces", ["state", "due_at"], unique=False)
    op.create_index(op.f("ix_pieces_sha256"), "pieces", ["sha256"], unique=False)
    op.create_table(
        "ways",
        sa.Column("release_id", sa.String(32), nullable=False),
        sa.Column("way", sa.String(8), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name=op.f("fk_ways_release_id_releases"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("release_id", "way", "reason", name=op.f("pk_ways")),
    )
    op.create_table(
        "means",
        sa.Column("device_pk", _PK, autoincrement=False, nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=True),
        sa.Column("codecs", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_pk"], ["devices.pk"], name=op.f("fk_means_device_pk_devices"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("device_pk", name=op.f("pk_means")),
    )
