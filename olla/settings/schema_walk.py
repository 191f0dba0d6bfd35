"""Which keys there are, read off the settings' own classes."""

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
    "places_of",
    "scalar_keys",
    "section_in",
]

_DURATION_MARKS = get_args(Duration)[1:]


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, be it alone, optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = section_in(argument)
        if found is not None:
            return found
    return None


def keys_below(key: Key) -> list[str]:
    """The names that may stand below a key; none where any name may, or where it is a value."""
    model = _section_at(key)
    return [] if model is None else list(model.model_fields)


def is_duration(key: Key) -> bool:
    """Whether the value of a key is a time."""
    *above, name = key
    model = _section_at(tuple(above))
    field = model.model_fields.get(str(name)) if model is not None else None
    return field is not None and any(mark in _DURATION_MARKS for mark in field.metadata)


def scalar_keys(
    model: type[BaseModel] = Settings, above: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Every key with one value, those of the endpoints left out."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from scalar_keys(inner, (*above, name))
        elif section_in(inner) is None and not _holds_many(inner):
            yield (*above, name)


def list_keys(
    model: type[BaseModel] = Settings, above: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Every key with a list of texts, those of the endpoints left out."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from list_keys(inner, (*above, name))
        elif inner == tuple[str, ...]:
            yield (*above, name)


def all_paths(model: type[BaseModel] = Settings, above: str = "") -> Iterator[str]:
    """Every key there is as a dotted path; `[]` marks a list, `NAME` a name of one's own."""
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        inner = section_in(field.annotation)
        if inner is not None:
            many = ".NAME" if _is_named(field.annotation) else "[]"
            listed = many if _holds_many(field.annotation) else ""
            yield from all_paths(inner, f"{above}{name}{listed}.")


def places_of(name: str) -> list[str]:
    """Where a key of this name may stand, as `all_paths` writes it."""
    return [path for path in all_paths() if path.rpartition(".")[2] == name]


def _section_at(key: Key) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Settings
    named = False
    for part in key:
        if isinstance(part, int):
            continue
        if named:  # a name of one's own
            named = False
            continue
        field = model.model_fields.get(part) if model is not None else None
        if field is None:
            return None
        model = section_in(field.annotation)
        named = _is_named(field.annotation)
    return None if named else model


def _is_named(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _holds_many(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (tuple, list, dict)
