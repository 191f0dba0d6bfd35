"""The fleet's models as one list, and how each wire format shows one of them.

Plain functions of what is known of the endpoints; which endpoints count, and HTTP, are `lists`'
business.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from olla.fleet.names import DEFAULT_NAMESPACE
from olla.fleet.profiles import ListFormat
from olla.fleet.snapshot import EndpointView, Instance, Model
from olla.surfaces.answers import iso_time

__all__ = [
    "Merged",
    "anthropic_model",
    "lowest_version",
    "merged",
    "ollama_entry",
    "openai_model",
    "running",
    "unified_model",
]


_TIME_CHARACTERS_MAX = 64
"""Longer than any RFC 3339 time; what is longer is not read (or remembered)."""
_CREATED_MAX = 253_402_300_799
"""The last second of the year 9999, in Unix time."""


class Merged(msgspec.Struct, frozen=True):
    """One model of the fleet.

    `name` is canonical, `model` the newest entry under that name and `view` the endpoint it is
    from; `created` is Unix seconds, 0 where nobody tells; `holders` are all endpoints that have
    it, in configuration order.
    """

    name: str
    model: Model
    view: EndpointView
    created: float
    holders: tuple[EndpointView, ...]

    @property
    def from_ollama(self) -> bool:
        """Whether the entry is one of Ollama's."""
        return _lists_as_ollama(self.view)


def merged(views: Iterable[EndpointView]) -> list[Merged]:
    """Every model these endpoints have, once, newest first.

    Under one name the newest entry counts, an Ollama's before any other (some servers say
    "created now" whenever they are asked); among equals the first endpoint's.
    """
    best: dict[str, tuple[tuple[bool, float], Model, EndpointView]] = {}
    holders: dict[str, list[EndpointView]] = {}
    for view in views:
        as_ollama = _lists_as_ollama(view)
        for name, model in view.models.items():
            rank = (as_ollama, _created(model, as_ollama))
            holders.setdefault(name, []).append(view)
            if name not in best or rank > best[name][0]:
                best[name] = (rank, model, view)
    found = [
        Merged(name, model, view, rank[1], tuple(holders[name]))
        for name, (rank, model, view) in best.items()
    ]
    found.sort(key=lambda each: -each.created)
    return found


def ollama_entry(one: Merged) -> Mapping[str, Any]:
    """The model as `/api/tags` shows it: its endpoint's own entry."""
    return one.model.entry or {"name": one.model.name, "model": one.model.name}


def running(
    views: Iterable[EndpointView], seen: Callable[[str], bool] = lambda model: True
) -> list[dict[str, Any]]:
    """What `/api/ps` shows: one entry per endpoint and instance of a model that may be `seen`,
    longest-lived first.

    Each is its endpoint's own, with the endpoint's name added.
    """
    found: list[tuple[float, dict[str, Any]]] = []
    for view in views:
        # A snapshot lists an instance under every name of its model file.
        once = {instance.name: instance for instance in view.resident.values()}
        for instance in filter(lambda each: seen(each.name), once.values()):
            entry = {**_instance_entry(instance), "endpoint": view.name}
            found.append((instance.expires_at or 0.0, entry))
    found.sort(key=lambda each: -each[0])
    return [entry for _, entry in found]


def openai_model(one: Merged) -> dict[str, Any]:
    """The model as `/v1/models` shows it.

    Ollama's are put together as Ollama does (owned by the name's namespace); others are their
    endpoint's own entries, with what the format needs and they lack.
    """
    base: dict[str, Any] = {
        "id": one.model.name,
        "object": "model",
        "created": int(one.created),
        "owned_by": _namespace(one.model.name) if one.from_ollama else one.view.spec.type,
    }
    return base if one.from_ollama else {**base, **one.model.entry}


def anthropic_model(one: Merged) -> dict[str, Any]:
    """The model as Anthropic's model list shows it."""
    return {
        "type": "model",
        "id": one.model.name,
        "display_name": one.model.name,
        "created_at": iso_time(one.created),
    }


def unified_model(one: Merged) -> dict[str, Any]:
    """The model for `/olla/models`: OpenAI's shape, and under `olla` what the fleet knows."""
    details = one.model.entry.get("details")
    if not isinstance(details, Mapping):
        details = {}
    return {
        "id": one.model.name,
        "object": "model",
        "created": int(one.created),
        "owned_by": _namespace(one.model.name) if one.from_ollama else one.view.spec.type,
        "olla": {
            "family": details.get("family"),
            "parameter_size": details.get("parameter_size"),
            "quantization": details.get("quantization_level"),
            "format": details.get("format"),
            "size": one.model.size,
            "digest": one.model.digest,
            "capabilities": one.model.entry.get("capabilities"),
            "max_context_length": _context_length(one.model.entry, details),
            "availability": [_availability(one.name, view) for view in one.holders],
        },
    }


def lowest_version(versions: Iterable[str]) -> str | None:
    """The oldest of these versions: clients switch features on by it, and any may serve them.

    A build from source calls itself 0.0.0, which says nothing of its age, so it counts only when
    there is no other. None when there are none.
    """
    known = sorted(versions, key=_version_key)
    dated = [version for version in known if _version_key(version)[0] != (0, 0, 0)]
    return next(iter(dated or known), None)


def _lists_as_ollama(view: EndpointView) -> bool:
    return view.profile is not None and view.profile.list_format is ListFormat.OLLAMA


def _created(model: Model, as_ollama: bool) -> float:
    if as_ollama:
        modified = model.entry.get("modified_at")
        if isinstance(modified, str) and len(modified) <= _TIME_CHARACTERS_MAX:
            return _unix_time(modified)
        return 0.0
    created = model.entry.get("created")
    if not isinstance(created, (int, float)):
        return 0.0
    return float(min(max(created, 0), _CREATED_MAX))


@lru_cache(maxsize=4096)
def _unix_time(text: str) -> float:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def _namespace(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else DEFAULT_NAMESPACE


def _instance_entry(instance: Instance) -> Mapping[str, Any]:
    return instance.entry or {"name": instance.name, "model": instance.name}


def _context_length(entry: Mapping[str, Any], details: Mapping[str, Any]) -> Any:
    # Ollama's word, then what vLLM and its kin say in their OpenAI lists.
    return details.get("context_length") or entry.get("max_model_len")


def _availability(name: str, view: EndpointView) -> dict[str, Any]:
    state = "resident" if name in view.resident else "available"
    return {"endpoint": view.name, "state": state}


def _version_key(version: str) -> tuple[Sequence[int], bool, str]:
    core, _, pre = version.strip().lstrip("v").partition("-")
    numbers = [int(part) if part.isdecimal() else 0 for part in core.split("+")[0].split(".")[:3]]
    return (*numbers, 0, 0, 0)[:3], not pre, pre
