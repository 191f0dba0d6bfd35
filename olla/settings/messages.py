"""What the validation found -> a key and a sentence that says what to do."""

import re
from difflib import get_close_matches
from typing import Any

from olla.settings.compatibility import foreign_names
from olla.settings.problems import Key, dotted
from olla.settings.schema_walk import is_duration, keys_below, places_of
from olla.settings.values import did_you_mean

__all__ = ["explain"]


def explain(error: Any, data: Any) -> tuple[Key, str]:
    """The key that one of pydantic's errors is about, and the message for it.

    `data` is what was validated: pydantic's own location also has steps that no file has.
    """
    key = _located(error["loc"], data)
    about = error.get("ctx", {}).get("key")
    return (*key, about) if about else key, _message(error, key)


def _located(loc: Key, data: Any) -> Key:
    key: list[str | int] = []
    for part in loc:
        if isinstance(data, dict):
            key.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            key.append(part)
            data = data[part]
    return tuple(key)


def _message(error: Any, key: Key) -> str:
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    shown = f"'{given}'" if isinstance(given, str) else str(given)
    if kind == "extra_forbidden":
        return "unknown key" + _hint(key)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        return f"{shown} is not one of {', '.join(choices)}{did_you_mean(str(given), choices)}"
    if kind in ("tuple_type", "list_type"):
        if isinstance(given, str):
            return f"this must be a list; write [{given}]"
        return "this must be a list: one '- …' a line"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        below = keys_below(key)
        names = f" with keys such as {', '.join(below[:4])}" if below else " of names to values"
        return f"this must be a mapping{names}"
    unit = " s" if is_duration(key) else ""
    least, above, most = (f"{context.get(each)}{unit}" for each in ("ge", "gt", "le"))
    simple = {
        "missing": f"this key is required in {dotted(key[:-1])}",
        "string_type": "this must be one text"
        + (", and nothing stands there" if given is None else ", not a list or a mapping"),
        "int_parsing": f"{shown} is no whole number",
        "int_type": f"{shown} is no whole number",
        "bool_parsing": f"{shown} is neither true nor false",
        "bool_type": f"{shown} is neither true nor false",
        "greater_than_equal": f"{shown} is too small; it must be at least {least}",
        "greater_than": f"{shown} is too small; it must be more than {above}",
        "less_than_equal": f"{shown} is too large; it must be at most {most}",
    }
    if kind in simple:
        return simple[kind]
    return str(error["msg"]).removeprefix("Value error, ")


def _hint(key: Key) -> str:
    name, above = str(key[-1]), key[:-1]
    known = keys_below(above)
    choices = [*known, *foreign_names(above)]
    # One slip away is nearer than alike: difflib finds "ken" more like "token" than like "key".
    slips = [each for each in choices if _is_one_slip(name.lower(), each)]
    near = get_close_matches(name, slips, 1, cutoff=0) or get_close_matches(
        name, choices, 1, cutoff=0.75
    )
    if near:
        return f"; did you mean {near[0]}?"
    places = places_of(name)
    if places:
        return f"; it belongs at {' or '.join(places[:3])}"
    near = get_close_matches(name, known, 1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _is_one_slip(given: str, meant: str) -> bool:
    """Whether one character left out, put in or replaced, or two neighbours swapped, explain it."""
    start = _shared(given, meant)
    left, right = given[start:], meant[start:]
    end = _shared(left[::-1], right[::-1])
    left, right = left[: len(left) - end], right[: len(right) - end]
    return max(len(left), len(right)) <= 1 or (len(left) == 2 and left == right[::-1])


def _shared(one: str, other: str) -> int:
    """How many characters two words begin with alike."""
    for at, (each, its) in enumerate(zip(one, other, strict=False)):
        if each != its:
            return at
    return min(len(one), len(other))
