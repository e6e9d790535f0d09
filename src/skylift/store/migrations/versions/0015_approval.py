"""Deployments to many devices wait for a second person."""

import sqlalchemy as sa
from alembic import op

revision = "0015_approval"
down_revision = "0014_channels"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deployments", sa.Column("approval_above", sa.Integer(), nullable=True))
    op.add_column("deployments", sa.Column("approved_by", sa.String(length=64), nullable=True))
    op.add_column("deployments", sa.Column("approved_at", sa.BigInteger(), nullable=True))
