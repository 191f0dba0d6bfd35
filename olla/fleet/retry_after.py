"""Read the pause that an endpoint asks for in `Retry-After`, strictly and with a bound.

RFC 9110, section 10.2.3: whole seconds or a date. Nodes may send anything there and clients obey
it, so the raw value is never forwarded or used in computations.
"""

import calendar
import re

__all__ = ["RETRY_AFTER_MAX", "retry_after"]

RETRY_AFTER_MAX = 86_400.0
"""Seconds: a day, the longest quota that services renew. Longer pauses are cut to it."""

_SECONDS = re.compile(r"[0-9]+")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (0[1-9]|[12][0-9]|3[01]) "
    rf"({'|'.join(_MONTHS)}) ([1-9][0-9]{{3}}) ([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]) GMT"
)
_DIGITS_MAX = 9


def retry_after(value: str, wall: float) -> float | None:
    """Return the seconds of a `Retry-After`, from 0 to `RETRY_AFTER_MAX`.

    `wall` is the Unix time. None for values that are neither digits nor a date in the form that
    servers must send (RFC 9110, section 5.6.7).
    """
    if _SECONDS.fullmatch(value):
        # Four hundred digits are a valid number, but overflow a float.
        return min(float(value), RETRY_AFTER_MAX) if len(value) <= _DIGITS_MAX else RETRY_AFTER_MAX
    date = _DATE.fullmatch(value)
    if date is None:
        return None
    day, month, year, *time = date.groups()
    hour, minute, second = map(int, time)
    moment = calendar.timegm((int(year), _MONTHS.index(month) + 1, int(day), hour, minute, second))
    return min(max(0.0, moment - wall), RETRY_AFTER_MAX)
