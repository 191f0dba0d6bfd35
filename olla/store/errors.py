"""Describe errors of the store in words that may be shown.

The text contains no credentials, no SQL and no values to be written.
"""

import os
import socket

from sqlalchemy.exc import DBAPIError

try:
    from asyncpg import DataError, InterfaceError, PostgresError
except ImportError:  # only SQLite can be opened without the extra
    POSTGRES_ERRORS: tuple[type[Exception], ...] = ()
    _UNFIT: tuple[type[Exception], ...] = (UnicodeError, OverflowError)
else:
    POSTGRES_ERRORS = (PostgresError, InterfaceError)
    _UNFIT = (DataError, UnicodeError, OverflowError)

__all__ = ["POSTGRES_ERRORS", "in_words"]

_HINTS = {
    "file is not a database": "the file belongs to something else; name another",
    "database is locked": "another process holds it",
    "password authentication failed": "check user and password in the store's URL",
    "does not exist": "create it, and let the user own it",
    "readonly database": "let olla's user write the file and its folder",
    "database or disk is full": "make room, or let usage be kept for a shorter time",
}
"""Advice by the message of the database."""


def in_words(error: BaseException) -> str:
    """Describe an error of a driver, of SQLAlchemy or of the operating system, in one line."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        # SQLAlchemy wraps asyncpg's own error.
        error = error.orig.__cause__ or error.orig
    text = _said(error)
    hint = next((hint for mark, hint in _HINTS.items() if mark in text), "")
    return f"{text}; {hint}" if hint else text


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"the host is not known ({error.strerror})"
    if isinstance(error, OSError):
        why = os.strerror(error.errno) if error.errno else str(error)
        where = f"'{error.filename}' " if error.filename else ""
        return f"{where}cannot be reached: {why}"
    # asyncpg's message repeats the value.
    if isinstance(error, _UNFIT):
        return "a value does not fit its column"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
