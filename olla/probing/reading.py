"""What endpoints answer, as models and instances. Lenient to entries, strict to the whole."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from olla.fleet.endpoint import ModelFilter
from olla.fleet.names import canonical, display
from olla.fleet.profiles import ListFormat
from olla.fleet.snapshot import Instance, Model

__all__ = ["instances", "models", "unix_seconds"]

_FRACTION = re.compile(r"\.(\d{6})\d+")


def models(
    answer: Mapping[str, Any] | None, style: ListFormat, allowed: ModelFilter
) -> dict[str, Model] | None:
    """The models of a list, by canonical name; None when the answer is no list.

    Entries without a usable name are passed over.
    """
    entries = _entries(answer, "models" if style is ListFormat.OLLAMA else "data")
    if entries is None:
        return None
    found: dict[str, Model] = {}
    for entry in entries:
        name = _text(entry.get("name") or entry.get("model") or entry.get("id"))
        if name is None or not _passes(name, allowed):
            continue
        digest = _text(entry.get("digest"))
        found[canonical(name)] = Model(
            name=name,
            digest=digest.removeprefix("sha256:") if digest else None,
            size=_whole(entry.get("size")),
            entry=entry,
        )
    return found


def instances(answer: Mapping[str, Any] | None) -> list[Instance] | None:
    """The models in memory; None when the answer is no list of them."""
    entries = _entries(answer, "models")
    if entries is None:
        return None
    found = []
    for entry in entries:
        name = _text(entry.get("name") or entry.get("model"))
        if name is None:
            continue
        digest = _text(entry.get("digest"))
        found.append(
            Instance(
                name=name,
                digest=digest.removeprefix("sha256:") if digest else None,
                size=_whole(entry.get("size")),
                size_vram=_whole(entry.get("size_vram")),
                context_length=_whole(entry.get("context_length")),
                expires_at=unix_seconds(entry.get("expires_at")),
                entry=entry,
            )
        )
    return found


def unix_seconds(value: object) -> float | None:
    """An RFC 3339 time as Unix seconds; None when it is none."""
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(_FRACTION.sub(r".\1", value)).timestamp()
    except (ValueError, OverflowError):
        return None


def _entries(answer: Mapping[str, Any] | None, key: str) -> Iterable[dict[str, Any]] | None:
    if answer is None or key not in answer:
        return None
    entries = answer[key]
    if entries is None:  # Ollama's /v1/models with no model
        return ()
    if not isinstance(entries, list):
        return None
    return [entry for entry in entries if isinstance(entry, dict)]


def _passes(name: str, allowed: ModelFilter) -> bool:
    spellings = {name.lower(), display(name).lower()}

    def matches(globs: tuple[str, ...]) -> bool:
        return any(fnmatchcase(each, glob.lower()) for glob in globs for each in spellings)

    return not matches(allowed.exclude) and (not allowed.include or matches(allowed.include))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= 1024 else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
