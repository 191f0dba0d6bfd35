"""Define the tables. Times are Unix seconds, durations seconds.

The migrations create the same tables; a test compares them.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

__all__ = ["key_revision", "keys", "metadata", "usage", "usage_content"]

metadata = MetaData()

_LONG = BigInteger().with_variant(Integer, "sqlite")
"""SQLite assigns row numbers only in a column of exactly this type, which has 64 bits too."""

keys = Table(
    "keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("shown", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False, index=True),
    Column("tier", Text, nullable=False),
    Column("rights", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("endpoints", JSON, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Column("made_by", Text, index=True),
    sqlite_autoincrement=True,  # ids are never reused, because usage refers to them
)
"""Keys: see `olla.access.keys.Key`. Rows are never deleted."""

key_revision = Table(
    "key_revision",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
)
"""One row, whose value grows with every change of `keys` in the same transaction."""

usage = Table(
    "usage",
    metadata,
    Column("id", _LONG, primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("request_id", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("key_name", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("failure", Text),
    Column("streaming", Boolean, nullable=False),
    Column("prompt_tokens", Integer),
    Column("output_tokens", Integer),
    Column("estimated", Boolean, nullable=False),
    Column("queue_seconds", Double),
    Column("first_token_seconds", Double),
    Column("total_seconds", Double),
    Index("ix_usage_caller_at", "caller", "at"),
    Index("ix_usage_owner_at", "owner", "at"),
)
"""One row per request: see `olla.store.usage.UsageRow`."""

usage_content = Table(
    "usage_content",
    metadata,
    Column("id", _LONG, primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("request_id", Text, nullable=False, index=True),
    Column("request", Text, nullable=False),
    Column("answer", Text, nullable=False),
)
"""Prompts and responses, only of requests whose content is recorded."""
