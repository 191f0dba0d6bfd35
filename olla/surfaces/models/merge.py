"""The fleet's models as one list, and how each wire format shows one of them.

Plain functions of what is known of the endpoints; which endpoints count, and HTTP, are `lists`'
business, what is kept from one request to the next is `catalogue`'s.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from olla.fleet.model_names import DEFAULT_NAMESPACE, display
from olla.fleet.profiles import ListFormat
from olla.fleet.snapshot import EndpointView, Model, ResidentModel
from olla.surfaces.responses import iso_time

__all__ = [
    "Details",
    "Merged",
    "anthropic_model",
    "known_of",
    "lowest_version",
    "merged",
    "merging",
    "ollama_entry",
    "openai_model",
    "running",
    "unified_model",
]


class Merged(msgspec.Struct, frozen=True, gc=False):
    """One model of the fleet.

    `name` is canonical, `shown` the same as Ollama shows it, and `model` the newest entry under
    that name. `owner` is whose a list in OpenAI's format says it is; `holders` are the names of all
    endpoints that have it, in configuration order; `from_ollama` says that the entry is one of
    Ollama's.
    """

    name: str
    shown: str
    model: Model
    owner: str
    holders: tuple[str, ...]
    from_ollama: bool


class Details(msgspec.Struct, frozen=True):
    """What a list entry says of a model, as far as olla shows it by itself; None where it says
    nothing."""

    family: str | None = None
    parameter_size: str | None = None
    quantization: str | None = None
    format: str | None = None
    capabilities: Sequence[Any] | None = None
    context_length: int | None = None

    @classmethod
    def of(cls, model: Model) -> "Details":
        """What the entry of a model says."""
        entry = _fields(model.entry)
        told = entry.get("details")
        details = told if isinstance(told, dict) else {}
        capabilities = entry.get("capabilities")
        return cls(
            _text(details.get("family")),
            _text(details.get("parameter_size")),
            _text(details.get("quantization_level")),
            _text(details.get("format")),
            capabilities if isinstance(capabilities, list) else None,
            # Ollama's word, then what vLLM and its kin say in their OpenAI lists.
            _count(details.get("context_length")) or _count(entry.get("max_model_len")),
        )


def merging(views: Iterable[EndpointView]) -> Generator[None, None, tuple[Merged, ...]]:
    """Every model these endpoints have, once, newest first. Yields after each, see `Slices`.

    Under one name the newest entry counts, an Ollama's before any other (some servers say
    "created now" whenever they are asked); among equals the first endpoint's.
    """
    best: dict[str, tuple[tuple[bool, float], Model, EndpointView]] = {}
    holders: dict[str, tuple[str, ...]] = {}
    for view in views:
        as_ollama = view.profile is not None and view.profile.list_format is ListFormat.OLLAMA
        alone = (view.name,)
        for name, model in view.models.items():
            yield
            rank = (as_ollama, model.created)
            others = holders.get(name)
            holders[name] = alone if others is None else others + alone
            if others is None or rank > best[name][0]:
                best[name] = (rank, model, view)
    names = sorted(best, key=lambda name: -best[name][0][1])
    found: list[Merged] = []
    for name in names:
        yield
        (as_ollama, _), model, view = best[name]
        owner = _namespace(model.name) if as_ollama else view.spec.type
        found.append(Merged(name, display(name), model, owner, holders[name], as_ollama))
    return tuple(found)


def merged(views: Iterable[EndpointView], name: str | None = None) -> Sequence[Merged]:
    """The same at once: for a model, by its canonical name, or for few."""
    if name is not None:
        views = [
            msgspec.structs.replace(view, models={name: view.models[name]})
            for view in views
            if name in view.models
        ]
    work = merging(views)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: Sequence[Merged] = done.value
            return found


def ollama_entry(one: Merged) -> bytes:
    """The model as `/api/tags` shows it: its endpoint's own entry, or one of the same shape for a
    model of another kind of server. Clients cut digests, so one is made of the name."""
    name = one.model.name
    if one.from_ollama:
        return one.model.entry or msgspec.json.encode({"name": name, "model": name})
    details = Details.of(one.model)
    family = details.family or ""
    return msgspec.json.encode(
        {
            "name": name,
            "model": name,
            "modified_at": iso_time(one.model.created),
            "size": one.model.size or 0,
            "digest": one.model.digest or sha256(name.encode()).hexdigest(),
            "details": {
                "parent_model": "",
                "format": details.format or "",
                "family": family,
                "families": [family] if family else [],
                "parameter_size": details.parameter_size or "",
                "quantization_level": details.quantization or "",
            },
        }
    )


def running(views: Iterable[EndpointView]) -> list[tuple[ResidentModel, bytes]]:
    """What `/api/ps` shows: one entry per endpoint and instance, longest-lived first.

    Each is its endpoint's own, with the endpoint's name added.
    """
    found: list[tuple[ResidentModel, bytes]] = []
    for view in views:
        # A snapshot lists an instance under every name of its model file.
        once = {resident_model.name: resident_model for resident_model in view.resident.values()}
        for resident_model in once.values():
            entry = _fields(resident_model.entry) or {
                "name": resident_model.name,
                "model": resident_model.name,
            }
            found.append((resident_model, msgspec.json.encode({**entry, "endpoint": view.name})))
    found.sort(key=lambda each: -(each[0].expires_at or 0.0))
    return found


def openai_model(one: Merged) -> dict[str, Any]:
    """The model as `/v1/models` shows it.

    Ollama's are put together as Ollama does (owned by the name's namespace); others are their
    endpoint's own entries, with what the format needs and they lack.
    """
    base: dict[str, Any] = {
        "id": one.model.name,
        "object": "model",
        "created": int(one.model.created),
        "owned_by": one.owner,
    }
    return base if one.from_ollama else {**base, **_fields(one.model.entry)}


def anthropic_model(one: Merged) -> dict[str, Any]:
    """The model as Anthropic's model list shows it."""
    return {
        "type": "model",
        "id": one.model.name,
        "display_name": one.model.name,
        "created_at": iso_time(one.model.created),
    }


def unified_model(one: Merged, views: Mapping[str, EndpointView]) -> dict[str, Any]:
    """The model for `/olla/models`: OpenAI's shape, and under `olla` what the fleet knows. `views`
    are the endpoints by name."""
    return {
        "id": one.model.name,
        "object": "model",
        "created": int(one.model.created),
        "owned_by": one.owner,
        "olla": {
            **known_of(one),
            "availability": [
                {
                    "endpoint": name,
                    "state": "resident" if one.name in views[name].resident else "available",
                }
                for name in one.holders
            ],
        },
    }


def known_of(one: Merged) -> dict[str, Any]:
    """What the fleet knows of a model wherever it is."""
    details = Details.of(one.model)
    return {
        "family": details.family,
        "parameter_size": details.parameter_size,
        "quantization": details.quantization,
        "format": details.format,
        "size": one.model.size,
        "digest": one.model.digest,
        "capabilities": details.capabilities,
        "max_context_length": details.context_length,
    }


def lowest_version(versions: Iterable[str]) -> str | None:
    """The oldest of these versions: clients switch features on by it, and any may serve them.

    A build from source calls itself 0.0.0, which says nothing of its age, so it counts only when
    there is no other. None when there are none.
    """
    known = sorted(versions, key=_version_key)
    dated = [version for version in known if _version_key(version)[0] != (0, 0, 0)]
    return next(iter(dated or known), None)


def _namespace(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else DEFAULT_NAMESPACE


def _fields(entry: bytes) -> dict[str, Any]:
    """The fields of a list entry, which `reading` has trimmed."""
    return msgspec.json.decode(entry, type=dict[str, Any]) if entry else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _version_key(version: str) -> tuple[Sequence[int], bool, str]:
    core, _, pre = version.strip().lstrip("v").partition("-")
    numbers = [int(part) if part.isdecimal() else 0 for part in core.split("+")[0].split(".")[:3]]
    return (*numbers, 0, 0, 0)[:3], not pre, pre
