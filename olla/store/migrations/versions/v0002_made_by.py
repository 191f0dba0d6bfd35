"""Which key made a key."""

import sqlalchemy as sa
from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of keys that are there already it is not known."""
    op.add_column("keys", sa.Column("made_by", sa.Text))
    op.create_index("ix_keys_made_by", "keys", ["made_by"])
