"""Parse and format values: durations, sizes, rates and choices."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

__all__ = [
    "Duration",
    "Rate",
    "Size",
    "did_you_mean",
    "duration",
    "lower",
    "one_of",
    "rate",
    "show_duration",
    "size",
]

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_DURATION = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PER_SECOND = {"ns": 10**9, "us": 10**6, "µs": 10**6, "μs": 10**6, "ms": 10**3}
_SECONDS_MAX = 1e9
_SIZE = re.compile(r"(\d+)(\.\d+)?\s*(?:([kmgt])i?)?b?", re.IGNORECASE)
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_BYTES_MAX = 2**63 - 1


def duration(value: object) -> float:
    """Parse a duration into seconds: a number, or `300ms`, `5s`, `1h30m`.

    Raises:
        ValueError: the value is malformed, negative or longer than 30 years.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("write a duration such as 300ms, 5s or 10m")
    text = str(value).strip()
    try:
        seconds = float(text)
    except ValueError:
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(
                f"'{text}' is not a valid duration; write e.g. 300ms, 5s, 10m or 1h30m"
            ) from None
        # Divide for small units: 51 / 1000 is exactly 0.051, 51 * 0.001 is not.
        seconds = sum(
            float(number) / _PER_SECOND[unit]
            if unit in _PER_SECOND
            else float(number) * _SECONDS[unit]
            for number, unit in parts
        )
    if not 0 <= seconds <= _SECONDS_MAX:
        raise ValueError(f"'{text}' is out of range; write a duration from 0s to 30 years")
    return seconds


def size(value: object) -> int:
    """Parse a size into bytes: a number, or `64KB`, `100MB`, `1GiB` (powers of 1024).

    Raises:
        ValueError: the value is malformed, negative or 2**63 or more.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("write a size in bytes, or such as 64KB or 100MB")
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"'{value}' is not a valid size; write bytes, 64KB, 100MB or 1GB")
    unit = _BYTES[(match[3] or "").lower()]
    found = int(match[1]) * unit + int(float(match[2] or 0) * unit)
    if found > _BYTES_MAX:
        raise ValueError(f"'{value}' is too large; write a size below 2**63 bytes")
    return found


def rate(value: object) -> int:
    """Parse a rate into bytes per second: a size, optionally followed by `/s`.

    Raises:
        ValueError: the value is malformed.
    """
    try:
        return size(value.strip().removesuffix("/s") if isinstance(value, str) else value)
    except ValueError:
        raise ValueError(
            f"'{value}' is not a valid rate; write bytes per second, or e.g. 500MB/s or 2GB/s"
        ) from None


def show_duration(seconds: float) -> str:
    """Format seconds in the shortest usual spelling that `duration` parses to the same number."""
    for unit, length in (("h", 3600.0), ("m", 60.0)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    milliseconds = f"{seconds * 1000:g}"
    if 0 < seconds < 1 and "e" not in milliseconds and float(milliseconds) / 1000 == seconds:
        return f"{milliseconds}ms"
    # repr() gives the shortest text that parses to the same number.
    return f"{seconds:.0f}s" if seconds == int(seconds) else repr(seconds)


Duration = Annotated[
    float,
    BeforeValidator(duration, json_schema_input_type=str | float),
    PlainSerializer(show_duration, return_type=str),
]
"""Seconds."""

Size = Annotated[int, BeforeValidator(size, json_schema_input_type=str | int)]
"""Bytes."""


def lower(value: object) -> object:
    """Strip and lower-case a string, so that choices are case-insensitive."""
    return value.strip().lower() if isinstance(value, str) else value


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """Return "; did you mean X?" with the nearest choice, or an empty string if none is near."""
    near = get_close_matches(given.lower(), list(choices), 1)
    return f"; did you mean {near[0]}?" if near else ""


def one_of(choices: Iterable[str], value: str, what: str) -> str:
    """Return `value` if it is one of `choices`; `what` names the kind of value in the error.

    Raises:
        ValueError: it is not; the message lists all choices and the nearest one.
    """
    known = list(choices)
    if value in known:
        return value
    raise ValueError(
        f"'{value}' is not a valid {what}; use one of {', '.join(known)}"
        f"{did_you_mean(value, known)}"
    )


Rate = Annotated[int, BeforeValidator(rate, json_schema_input_type=str | int)]
"""Bytes per second."""
