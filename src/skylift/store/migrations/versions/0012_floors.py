"""Security floors, as devices report them."""

import sqlalchemy as sa
from alembic import op

revision = "0012_floors"
down_revision = "0011_sbom"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "floors",
        sa.Column(
            "device_pk",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("floor", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_pk"], ["devices.pk"], name=op.f("fk_floors_device_pk_devices"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("device_pk", name=op.f("pk_floors")),
    )
    op.create_index(op.f("ix_floors_floor"), "floors", ["floor"], unique=False)
