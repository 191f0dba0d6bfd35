"""What endpoints ask for with `Retry-After`, and what comes of it."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.retry_after import RETRY_AFTER_MAX, retry_after

WALL = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("007", 7.0),
        ("86399", 86_399.0),
        ("Sun, 06 Nov 1994 08:51:07 GMT", 90.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_seconds_and_dates_are_read(value: str, seconds: float) -> None:
    """A moment that is past asks for nothing."""
    assert retry_after(value, WALL) == seconds


@pytest.mark.parametrize(
    "value",
    ["86401", "9" * 9, "9" * 10, "9" * 400, "Sun, 06 Nov 9999 08:49:37 GMT"],
    ids=["a day and a second", "thirty years", "centuries", "400 digits", "a date centuries away"],
)
def test_an_absurd_wait_is_held_to_a_day(value: str) -> None:
    """Whatever its length: neither infinite nor an overflow."""
    assert retry_after(value, WALL) == RETRY_AFTER_MAX


@pytest.mark.parametrize(
    "value",
    [
        *("", "soon", "-1", "+1", "1.5", "1e3", "0x10", " 7", "7 ", "7, 7", "7s", "²", "٧"),
        *("inf", "nan", "1_000"),
        *("Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 CET"),
        *("Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT"),
        *("Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT"),
        "Sun, 06 Nov 99999 08:49:37 GMT",
        *("1994-11-06T08:49:37Z", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"),
    ],
)
def test_anything_else_says_nothing(value: str) -> None:
    """Forms that servers may not send any more as well."""
    assert retry_after(value, WALL) is None


@given(st.text(max_size=60))
def test_no_text_raises_or_asks_for_more(value: str) -> None:
    """It is a wait between none and a day, or it is none."""
    seconds = retry_after(value, WALL)
    assert seconds is None or 0.0 <= seconds <= RETRY_AFTER_MAX


@given(st.integers(0, 253_402_300_799))
def test_every_date_that_can_be_written_is_read(moment: int) -> None:
    """From 1970 to the end of 9999."""
    expected = min(max(0.0, moment - WALL), RETRY_AFTER_MAX)
    assert retry_after(formatdate(moment, usegmt=True), WALL) == expected
