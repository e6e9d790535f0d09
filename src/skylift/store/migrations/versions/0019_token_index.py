"""PostgreSQL finds a device's token by a hash index, which also keeps it the only one."""

import sqlalchemy as sa
from alembic import op

revision = "0019_token_index"
down_revision = "0018_ways"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    op.create_exclude_constraint(
        op.f("ex_devices_token_hash"), "devices", (sa.column("token_hash"), "="), using="hash"
    )
    op.drop_constraint(op.f("uq_devices_token_hash"), "devices", type_="unique")
