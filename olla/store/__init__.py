"""Store keys and usage beyond the life of the process: in SQLite, or in PostgreSQL by URL.

The modules that need the database libraries import them, not this one.
"""

__all__ = ["MakerRevoked", "StoreError"]


class StoreError(Exception):
    """The store cannot be used, or an operation failed. The message says why."""


class MakerRevoked(Exception):
    """A key was not created, because its maker has been revoked."""
