"""Durations and sizes as people write them."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

__all__ = ["Duration", "Size", "duration", "size"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)", re.IGNORECASE)
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def duration(value: object) -> float:
    """Seconds: a number, or `300ms`, `5s`, `1h30m`.

    Raises:
        ValueError: it is neither, or negative.
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
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 <= seconds < 1e9:
        raise ValueError(f"'{text}' is no duration; it must not be negative")
    return seconds


def size(value: object) -> int:
    """Bytes: a number, or `64KB`, `100MB`, `1GiB` (powers of 1024).

    Raises:
        ValueError: it is neither, or negative.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("write a size in bytes, or such as 64KB or 100MB")
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"'{value}' is no size; write bytes, 64KB, 100MB or 1GB")
    unit = match[2].lower().rstrip("b").rstrip("i")
    return int(float(match[1]) * _BYTES[unit])


def _show_duration(seconds: float) -> str:
    if seconds and seconds < 1:
        return f"{seconds * 1000:g}ms"
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


Duration = Annotated[
    float,
    BeforeValidator(duration, json_schema_input_type=str | float),
    PlainSerializer(_show_duration, return_type=str),
]
"""Seconds."""

Size = Annotated[int, BeforeValidator(size, json_schema_input_type=str | int)]
"""Bytes."""


def one_of(allowed: list[str], value: Any, what: str) -> str:
    """`value`, if it is one of `allowed`.

    Raises:
        ValueError: it is not; the message names the nearest.
    """
    if value in allowed:
        return str(value)
    from difflib import get_close_matches

    near = get_close_matches(str(value), allowed, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"'{value}' is no {what}; there are {', '.join(allowed)}{hint}")
