"""What endpoints answer, as models and instances. Lenient to entries, strict to the whole."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from olla.fleet.endpoint import ModelFilter
from olla.fleet.names import DEFAULT_TAG, canonical, display
from olla.fleet.profiles import ListFormat
from olla.fleet.snapshot import Instance, Model

__all__ = ["instances", "models", "unix_seconds"]

_FRACTION = re.compile(r"\.(\d{6})\d+")
_NAME_MAX = 1024
"""Characters."""


def models(
    answer: Mapping[str, Any] | None, style: ListFormat, allowed: ModelFilter
) -> dict[str, Model] | None:
    """The models of a list, by canonical name, those that the operator lets olla use.

    Entries without a usable name are passed over. None when the answer is no list, or when that
    is true of every one of its entries.
    """
    entries = _entries(answer, "models" if style is ListFormat.OLLAMA else "data")
    if entries is None:
        return None
    found: dict[str, Model] = {}
    for name, entry in entries:
        if _passes(name, allowed):
            found[canonical(name)] = Model(
                name=name,
                digest=_digest(entry.get("digest")),
                size=_whole(entry.get("size")),
                entry=entry,
            )
    return found


def instances(answer: Mapping[str, Any] | None) -> list[Instance] | None:
    """The models in memory; None when the answer is no list of them, as with `models`."""
    entries = _entries(answer, "models")
    if entries is None:
        return None
    return [
        Instance(
            name=name,
            digest=_digest(entry.get("digest")),
            size=_whole(entry.get("size")),
            size_vram=_whole(entry.get("size_vram")),
            context_length=_whole(entry.get("context_length")),
            expires_at=unix_seconds(entry.get("expires_at")),
            entry=entry,
        )
        for name, entry in entries
    ]


def unix_seconds(value: object) -> float | None:
    """An RFC 3339 time as Unix seconds; None when it is none, or Go's year 1 for "no time"."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(r".\1", value))
        # Without an offset it would be read as this machine's own time.
        return None if moment.tzinfo is None or moment.year == 1 else moment.timestamp()
    except (ValueError, OverflowError):
        return None


def _entries(
    answer: Mapping[str, Any] | None, key: str
) -> Sequence[tuple[str, dict[str, Any]]] | None:
    """The entries under `key` that have a name, with it; None when it is no list of such."""
    if answer is None or key not in answer:
        return None
    entries = answer[key]
    if entries is None:  # Ollama's /v1/models with no model
        return ()
    if not isinstance(entries, list):
        return None
    named = [
        (name, entry)
        for entry in entries
        if isinstance(entry, dict) and (name := _name(entry)) is not None
    ]
    return named if named or not entries else None


def _name(entry: Mapping[str, Any]) -> str | None:
    for key in ("name", "model", "id"):
        value = entry.get(key)
        if isinstance(value, str) and value.strip() and len(value) <= _NAME_MAX:
            return value
    return None


def _passes(name: str, allowed: ModelFilter) -> bool:
    shown = display(name).lower()
    spellings = {name.lower(), shown, shown.removesuffix(f":{DEFAULT_TAG}")}

    def matches(globs: tuple[str, ...]) -> bool:
        return any(fnmatchcase(each, glob.lower()) for glob in globs for each in spellings)

    return not matches(allowed.exclude) and (not allowed.include or matches(allowed.include))


def _digest(value: object) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= _NAME_MAX:
        return None
    return value.removeprefix("sha256:")


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if value >= 0 else None
