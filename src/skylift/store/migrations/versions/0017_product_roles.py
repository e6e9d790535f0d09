"""Roles for single products, beside those for the whole server."""

import sqlalchemy as sa
from alembic import op

revision = "0017_product_roles"
down_revision = "0016_sign_in"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("products", sa.Text(), nullable=True))
    op.add_column("operator_tokens", sa.Column("products", sa.Text(), nullable=True))
