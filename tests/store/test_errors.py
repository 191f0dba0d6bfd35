"""What went wrong is said without secrets."""

import asyncpg
from sqlalchemy.exc import IntegrityError

from olla.store.errors import in_words


def test_a_drivers_error_is_told_in_its_words() -> None:
    """Neither the statement nor its parameters, and one line only."""
    orig = asyncpg.UniqueViolationError("duplicate key\nDETAIL: Key (digest)=(geheim)")
    told = in_words(IntegrityError("INSERT geheim", {"a": "geheim"}, orig))
    assert told == "duplicate key"


def test_a_value_is_not_repeated() -> None:
    """asyncpg says what the value was that it could not take."""
    told = in_words(asyncpg.DataError("invalid input for query argument $1: 'geheim'"))
    assert told == "a value does not fit its column"
    unencodable = UnicodeEncodeError("utf-8", "geheim\ud800", 6, 7, "surrogates not allowed")
    assert in_words(unencodable) == "a value does not fit its column"


def test_systems_errors_are_told_by_their_number() -> None:
    """asyncio's own texts say that a call failed, and not why."""
    refused = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
    assert in_words(refused) == "cannot be reached: Connection refused"
    assert in_words(PermissionError(13, "", "/a")) == "'/a' cannot be reached: Permission denied"
    assert in_words(TimeoutError()) == "no answer in time"


def test_there_is_always_something_to_read() -> None:
    """The name of the error where it says nothing; advice where there is some."""
    assert in_words(asyncpg.InterfaceError("")) == "InterfaceError"
    assert "name another" in in_words(asyncpg.InterfaceError("file is not a database"))
