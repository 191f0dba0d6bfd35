"""What outlives the process: keys, and what was used. SQLite by default, PostgreSQL by URL.

What is here is light: the libraries of databases are loaded by who opens a store.
"""

__all__ = ["StoreError"]


class StoreError(Exception):
    """The store cannot be used, or did not do what it was asked for. The message says why."""
