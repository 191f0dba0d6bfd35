"""Merge the fleet's models into one list, and show them in each wire format.

Plain functions of what is known about the endpoints. `lists` chooses the endpoints and speaks HTTP;
`list_cache` caches the results.
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

    `name` is canonical, `shown` the name in Ollama's form, and `model` the newest entry under that
    name. `owner` is the owner in lists of OpenAI's format. `holders` are the names of all endpoints
    with the model, in configuration order. `from_ollama`: the entry comes from Ollama.
    """

    name: str
    shown: str
    model: Model
    owner: str
    holders: tuple[str, ...]
    from_ollama: bool


class Details(msgspec.Struct, frozen=True):
    """Details of a list entry that olla shows itself; None if unknown."""

    family: str | None = None
    parameter_size: str | None = None
    quantization: str | None = None
    format: str | None = None
    capabilities: Sequence[Any] | None = None
    context_length: int | None = None

    @classmethod
    def of(cls, model: Model) -> "Details":
        """Return the details of a model's entry."""
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
            # Ollama's field, then that of vLLM and similar servers in OpenAI lists.
            _count(details.get("context_length")) or _count(entry.get("max_model_len")),
        )


def merging(views: Iterable[EndpointView]) -> Generator[None, None, tuple[Merged, ...]]:
    """Merge the models of endpoints, newest first. Yields after each model, see `Slices`.

    Of several entries under one name the newest counts, but Ollama's before any other (some servers
    report "created now" in each response), and among equals the first endpoint's.
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
    """Merge at once: for one model, by its canonical name, or for few."""
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
    """Return the model's entry in `/api/tags`: its endpoint's own entry, or one of the same form
    for a model of another kind of server. Its digest is a hash of the name, because clients slice
    digests."""
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
    """Return the entries of `/api/ps`: one per endpoint and loaded model, the latest expiry first.

    Each is the endpoint's own entry with the endpoint's name added.
    """
    found: list[tuple[ResidentModel, bytes]] = []
    for view in views:
        # A snapshot lists a loaded model under every name of its file.
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
    """Return the model's entry in `/v1/models`.

    Entries of Ollama's models are built as Ollama does (owned by the name's namespace). Others are
    their endpoint's own entries, completed with required fields.
    """
    base: dict[str, Any] = {
        "id": one.model.name,
        "object": "model",
        "created": int(one.model.created),
        "owned_by": one.owner,
    }
    return base if one.from_ollama else {**base, **_fields(one.model.entry)}


def anthropic_model(one: Merged) -> dict[str, Any]:
    """Return the model's entry in Anthropic's model list."""
    return {
        "type": "model",
        "id": one.model.name,
        "display_name": one.model.name,
        "created_at": iso_time(one.model.created),
    }


def unified_model(one: Merged, views: Mapping[str, EndpointView]) -> dict[str, Any]:
    """Return the model's entry in `/olla/models`: OpenAI's form, with the fleet's knowledge under
    `olla`. `views` are the endpoints by name."""
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
    """Return what the fleet knows about a model on all endpoints."""
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
    """Return the oldest version: clients enable features by it, and any endpoint may serve them.

    Builds from source call themselves 0.0.0, which says nothing about their age. They count only if
    there is no other version. None without versions.
    """
    known = sorted(versions, key=_version_key)
    dated = [version for version in known if _version_key(version)[0] != (0, 0, 0)]
    return next(iter(dated or known), None)


def _namespace(name: str) -> str:
    parts = name.split("/")
    return parts[-2] if len(parts) > 1 else DEFAULT_NAMESPACE


def _fields(entry: bytes) -> dict[str, Any]:
    """Return the fields of a list entry, which `list_parsing` has trimmed."""
    return msgspec.json.decode(entry, type=dict[str, Any]) if entry else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _version_key(version: str) -> tuple[Sequence[int], bool, str]:
    core, _, pre = version.strip().lstrip("v").partition("-")
    numbers = [int(part) if part.isdecimal() else 0 for part in core.split("+")[0].split(".")[:3]]
    return (*numbers, 0, 0, 0)[:3], not pre, pre
