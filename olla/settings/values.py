"""Values as people write them: durations, sizes, words of a set."""

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
    """Seconds: a number, or `300ms`, `5s`, `1h30m`.

    Raises:
        ValueError: it is neither, or negative, or longer than thirty years.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("write a duration such as 300ms, 5s or 10m")
    text = str(value).strip()
    try:
        seconds = float(text)
    except ValueError:
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(f"'{text}' is no duration; write 300ms, 5s, 10m or 1h30m") from None
        # Small units divide: 51 / 1000 is 0.051, and 51 * 0.001 is not.
        seconds = sum(
            float(number) / _PER_SECOND[unit]
            if unit in _PER_SECOND
            else float(number) * _SECONDS[unit]
            for number, unit in parts
        )
    if not 0 <= seconds <= _SECONDS_MAX:
        raise ValueError(f"'{text}' is no duration; write one from 0s to 30 years")
    return seconds


def size(value: object) -> int:
    """Bytes: a number, or `64KB`, `100MB`, `1GiB` (powers of 1024).

    Raises:
        ValueError: it is neither, or negative, or beyond 2**63.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("write a size in bytes, or such as 64KB or 100MB")
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"'{value}' is no size; write bytes, 64KB, 100MB or 1GB")
    unit = _BYTES[(match[3] or "").lower()]
    found = int(match[1]) * unit + int(float(match[2] or 0) * unit)
    if found > _BYTES_MAX:
        raise ValueError(f"'{value}' is larger than any machine; write bytes, 64KB, 100MB or 1GB")
    return found


def rate(value: object) -> int:
    """Bytes per second: a size, with or without `/s` after it.

    Raises:
        ValueError: it is neither.
    """
    try:
        return size(value.strip().removesuffix("/s") if isinstance(value, str) else value)
    except ValueError:
        raise ValueError(
            f"'{value}' is no size per second; write bytes, or such as 500MB/s or 2GB/s"
        ) from None


def show_duration(seconds: float) -> str:
    """The shortest usual spelling; `duration` reads it back as the same number."""
    for unit, length in (("h", 3600.0), ("m", 60.0)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    milliseconds = f"{seconds * 1000:g}"
    if 0 < seconds < 1 and "e" not in milliseconds and float(milliseconds) / 1000 == seconds:
        return f"{milliseconds}ms"
    # Python's shortest text that reads back as the same number.
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
    """Words of a fixed set may be written in capitals."""
    return value.strip().lower() if isinstance(value, str) else value


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """The end of a message: the nearest of `choices`, or nothing when none is near."""
    near = get_close_matches(given.lower(), list(choices), 1)
    return f"; did you mean {near[0]}?" if near else ""


def one_of(choices: Iterable[str], value: str, what: str) -> str:
    """`value`, if it is one of `choices`.

    Raises:
        ValueError: it is not; the message names them all, and the nearest.
    """
    known = list(choices)
    if value in known:
        return value
    raise ValueError(
        f"'{value}' is no {what}; there are {', '.join(known)}{did_you_mean(value, known)}"
    )


Rate = Annotated[int, BeforeValidator(rate, json_schema_input_type=str | int)]
"""Bytes per second."""
