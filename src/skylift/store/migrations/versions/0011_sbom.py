"""A release may have a bill of materials."""

import sqlalchemy as sa
from alembic import op

revision = "0011_sbom"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("releases", sa.Column("sbom", sa.Text(), nullable=True))
