"""What outlives the process: keys, and what was used. SQLite by default, PostgreSQL by URL.

Database libraries are imported by the modules that need them, not here.
"""

__all__ = ["MakerRevoked", "StoreError"]


class StoreError(Exception):
    """The store cannot be used, or did not do what it was asked for. The message says why."""


class MakerRevoked(Exception):
    """A key was not made, because the key that was to make it has been revoked."""
