"""Turn validation errors into a key and a sentence that says what to do."""

import re
from difflib import get_close_matches
from typing import Any

from olla.settings.compatibility import foreign_names
from olla.settings.problems import Key, dotted
from olla.settings.schema_walk import is_duration, keys_below, paths_named
from olla.settings.values import did_you_mean

__all__ = ["explain"]


def explain(error: Any, data: Any) -> tuple[Key, str]:
    """Return the key and the message for one of pydantic's errors.

    `data` is the validated data. It is needed because pydantic's location also has steps that do
    not exist in the file.
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
        return "this must be a list; write each item as '- …' on its own line"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        known = keys_below(key)
        names = f" with keys such as {', '.join(known[:4])}" if known else " of names to values"
        return f"this must be a mapping{names}"
    unit = " s" if is_duration(key) else ""
    least, above, most = (f"{context.get(each)}{unit}" for each in ("ge", "gt", "le"))
    simple = {
        "missing": f"this key is required in {dotted(key[:-1])}",
        "string_type": "this must be a string"
        + (", but it has no value" if given is None else ", not a list or a mapping"),
        "int_parsing": f"{shown} is not a whole number",
        "int_type": f"{shown} is not a whole number",
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
    name, parent = str(key[-1]), key[:-1]
    known = keys_below(parent)
    choices = [*known, *foreign_names(parent)]
    # One typing error beats similarity: difflib finds "ken" closer to "token" than to "key".
    typos = [each for each in choices if _is_one_typo(name.lower(), each)]
    near = get_close_matches(name, typos, 1, cutoff=0) or get_close_matches(
        name, choices, 1, cutoff=0.75
    )
    if near:
        return f"; did you mean {near[0]}?"
    paths = paths_named(name)
    if paths:
        return f"; it belongs at {' or '.join(paths[:3])}"
    near = get_close_matches(name, known, 1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known keys: {', '.join(sorted(known))}" if known else ""


def _is_one_typo(given: str, meant: str) -> bool:
    """Return whether one omitted, added or replaced character, or one swapped pair, explains it."""
    start = _common_prefix_length(given, meant)
    left, right = given[start:], meant[start:]
    end = _common_prefix_length(left[::-1], right[::-1])
    left, right = left[: len(left) - end], right[: len(right) - end]
    return max(len(left), len(right)) <= 1 or (len(left) == 2 and left == right[::-1])


def _common_prefix_length(one: str, other: str) -> int:
    for at, (each, its) in enumerate(zip(one, other, strict=False)):
        if each != its:
            return at
    return min(len(one), len(other))
