"""Last contacts are bound to no device, and PostgreSQL keeps half of each page free for the next one."""

from alembic import op

revision = "0020_last_contacts"
down_revision = "0019_token_index"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("seen") as table:
        table.drop_constraint(op.f("fk_seen_device_pk_devices"), type_="foreignkey")
    if op.get_context().dialect.name == "postgresql":
        # A contact that finds room beside the one before it touches no index.
        op.execute("ALTER TABLE seen SET (fillfactor = 50)")
