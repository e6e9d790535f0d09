"""Secrets of one-time codes are sealed; clear ones are at the server's next start."""

import sqlalchemy as sa
from alembic import op

revision = "0013_sealed"
down_revision = "0012_floors"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("totp_sealed", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("totp_offered", sa.Text(), nullable=True))
