"""Writes times as RFC 3339 has them, without the standard library's clock modules."""

__all__ = ["rfc3339"]

_DAY = 86_400
_ERA_DAYS = 146_097
"""Days of 400 years of the Gregorian calendar."""


def rfc3339(seconds: float) -> str:
    """Unix seconds as UTC with microseconds, such as `2026-11-28T05:00:00.000000Z`.

    The year is counted from March, so that leap days come last; see Hinnant, "chrono-compatible
    low-level date algorithms".
    """
    whole = int(seconds)
    micros = int((seconds - whole) * 1_000_000)
    days, rest = divmod(whole, _DAY)
    era, day = divmod(days + 719_468, _ERA_DAYS)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (month <= 2)
    hour, rest = divmod(rest, 3600)
    minute, second = divmod(rest, 60)
    return f"{year:04}-{month:02}-{day + 1:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
