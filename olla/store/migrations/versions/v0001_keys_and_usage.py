"""Keys, and what was used."""

import sqlalchemy as sa
from alembic import op

__all__ = ["branch_labels", "depends_on", "down_revision", "revision", "upgrade"]

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_LONG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "keys",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("shown", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False, index=True),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("rights", sa.JSON, nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("endpoints", sa.JSON, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("revoked", sa.Double),
        sqlite_autoincrement=True,
    )
    revisions = op.create_table(
        "key_revision",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(revisions, [{"only": 1, "value": 0}])
    _make_usage()


def _make_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("id", _LONG, primary_key=True),
        sa.Column("at", sa.Double, nullable=False, index=True),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("request_id", "caller", "owner", "key_name", "tier", "operation")
        ),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("dialect", "model", "endpoint")),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("failure", sa.Text),
        sa.Column("streaming", sa.Boolean, nullable=False),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("queue_seconds", sa.Double),
        sa.Column("first_token_seconds", sa.Double),
        sa.Column("total_seconds", sa.Double),
    )
    op.create_index("ix_usage_caller_at", "usage", ["caller", "at"])
    op.create_index("ix_usage_owner_at", "usage", ["owner", "at"])
    op.create_table(
        "usage_content",
        sa.Column("id", _LONG, primary_key=True),
        sa.Column("at", sa.Double, nullable=False, index=True),
        sa.Column("request_id", sa.Text, nullable=False, index=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
    )
