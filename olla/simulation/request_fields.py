"""Read the fields of a request's JSON, with Ollama's error messages."""

import math
import re
from typing import Any

from olla.simulation.responses import ApiError

__all__ = ["keep_alive_seconds", "list_field", "mapping_field", "text_field", "texts_field"]

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)"
_GO_DURATION = re.compile(rf"[-+]?(?:{_PART})+")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")


def keep_alive_seconds(body: dict[str, Any]) -> float | None:
    """`keep_alive` as Ollama reads it: seconds, or a Go duration; negative is for ever (infinity).

    None where it is not there.

    Raises:
        ApiError: it is neither, such as a number in a string.
    """
    value = body.get("keep_alive")
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return math.inf if value < 0 else float(value)
    if not isinstance(value, str):
        raise ApiError(400, f"Unsupported type: '{_kind(value)}'")
    if value == "0":  # the one number that Go takes without a unit
        return 0.0
    if _GO_DURATION.fullmatch(value):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, value))
        return math.inf if value.startswith("-") and seconds else seconds
    problem = "missing unit in" if _NUMBER.fullmatch(value) else "invalid"
    raise ApiError(400, f'time: {problem} duration "{value}"')


def text_field(body: dict[str, Any], name: str) -> str:
    """A text; empty where it is not there.

    Raises:
        ApiError: it is something else.
    """
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _mismatch(name, value, "string")
    return value


def mapping_field(body: dict[str, Any], name: str) -> dict[str, Any]:
    """An object; empty where it is not there.

    Raises:
        ApiError: it is something else.
    """
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _mismatch(name, value, "map[string]interface {}")
    return value


def list_field(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects; empty where it is not there.

    Raises:
        ApiError: it is something else.
    """
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _mismatch(name, value, "[]object")
    for each in value:
        if not isinstance(each, dict):
            raise _mismatch(name, each, "object")
    return value


def texts_field(body: dict[str, Any], name: str) -> list[str]:
    """A text or a list of texts; an empty text is none.

    Raises:
        ApiError: it is something else.
    """
    value = body.get(name)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ApiError(400, "invalid input type")
    return value


def _mismatch(name: str, value: object, wanted: str) -> ApiError:
    return ApiError(
        400, f"json: cannot unmarshal {_kind(value)} into Go struct field .{name} of type {wanted}"
    )


def _kind(value: object) -> str:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")
