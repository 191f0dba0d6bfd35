"""List the known keys, as read from the settings classes."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from olla.settings.model import Settings
from olla.settings.problems import Key
from olla.settings.values import Duration

__all__ = [
    "all_paths",
    "is_duration",
    "keys_below",
    "list_keys",
    "paths_named",
    "scalar_keys",
    "section_in",
]

_DURATION_MARKS = get_args(Duration)[1:]


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section class in a field's annotation, also if optional or in a list or dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = section_in(argument)
        if found is not None:
            return found
    return None


def keys_below(key: Key) -> list[str]:
    """Return the names allowed below a key; empty if any name is allowed, or the key is a value."""
    model = _section_at(key)
    return [] if model is None else list(model.model_fields)


def is_duration(key: Key) -> bool:
    """Return whether the value of a key is a duration."""
    *parent, name = key
    model = _section_at(tuple(parent))
    field = model.model_fields.get(str(name)) if model is not None else None
    return field is not None and any(mark in _DURATION_MARKS for mark in field.metadata)


def scalar_keys(
    model: type[BaseModel] = Settings, parent: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield every key with a single value, except those of endpoints."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from scalar_keys(inner, (*parent, name))
        elif section_in(inner) is None and not _is_collection(inner):
            yield (*parent, name)


def list_keys(
    model: type[BaseModel] = Settings, parent: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield every key that holds a list of strings, except those of endpoints."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from list_keys(inner, (*parent, name))
        elif inner == tuple[str, ...]:
            yield (*parent, name)


def all_paths(model: type[BaseModel] = Settings, parent: str = "") -> Iterator[str]:
    """Yield every key as a dotted path; `[]` marks a list, `NAME` a user-defined name."""
    for name, field in model.model_fields.items():
        yield f"{parent}{name}"
        inner = section_in(field.annotation)
        if inner is not None:
            marker = ".NAME" if _is_dict(field.annotation) else "[]"
            suffix = marker if _is_collection(field.annotation) else ""
            yield from all_paths(inner, f"{parent}{name}{suffix}.")


def paths_named(name: str) -> list[str]:
    """Return the paths of all keys with this name, in the notation of `all_paths`."""
    return [path for path in all_paths() if path.rpartition(".")[2] == name]


def _section_at(key: Key) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Settings
    is_dict = False
    for part in key:
        if isinstance(part, int):
            continue
        if is_dict:  # this part is a user-defined name
            is_dict = False
            continue
        field = model.model_fields.get(part) if model is not None else None
        if field is None:
            return None
        model = section_in(field.annotation)
        is_dict = _is_dict(field.annotation)
    return None if is_dict else model


def _is_dict(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _is_collection(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (tuple, list, dict)
