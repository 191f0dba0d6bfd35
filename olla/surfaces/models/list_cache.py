"""Cache the merged lists of models until their sources change.

Merging and encoding ten thousand models takes tenths of a second, and clients request lists
repeatedly. The result is cached as bytes per model, and rebuilt in slices when needed.
"""

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from olla.access.visibility import Visibility
from olla.fleet.snapshot import EndpointView
from olla.probing.slices import Slices
from olla.surfaces.models.merge import Merged, merging

__all__ = ["ListCache", "Row", "Shape"]

T = TypeVar("T")
_MERGED_MAX = 8
"""Sets of endpoints whose merged models are cached."""
_BYTES_MAX = 32 * 1024 * 1024
"""Bytes of all cached lists. The most recent one is kept in any case."""
_ROW_BYTES = 120
"""Approximate memory of a row besides its JSON."""

Row = tuple[Merged, bytes]
"""A model, and its list entry as JSON."""


class Shape(msgspec.Struct, frozen=True):
    """A form of list entries: `make` builds one; it also receives the endpoints by name. `memory`:
    entries depend on which models are loaded."""

    make: Callable[[Merged, Mapping[str, EndpointView]], Any]
    memory: bool = False

    def row(self, one: Merged, views: Mapping[str, EndpointView]) -> Row:
        """Return a model's row."""
        made = self.make(one, views)
        return one, made if isinstance(made, bytes) else msgspec.json.encode(made)


class ListCache:
    """Builds and caches merged lists. One per router."""

    def __init__(self) -> None:
        self._slices = Slices()
        # Each value is stored with the objects whose identity is its key. While they are
        # referenced, no other object can have their address.
        self._merged: OrderedDict[Hashable, tuple[object, tuple[Merged, ...]]] = OrderedDict()
        self._rows: OrderedDict[Hashable, tuple[object, tuple[Row, ...], int]] = OrderedDict()
        self._bytes = 0
        self._begun = 0
        """The number of shared computations that were started."""
        self._last: tuple[Hashable, int, Any] | None = None
        """The latest computation by key: its number and its result."""

    async def shared(self, key: Hashable, make: Callable[[], Generator[None, None, T]]) -> T:
        """Return the result of a long computation. Callers with the same `key` share a result that
        was started after their calls: a hundred concurrent calls cost two computations."""
        return await self._slices.run(self._sharing(key, self._begun, make))

    def _sharing(
        self, key: Hashable, begun: int, make: Callable[[], Generator[None, None, T]]
    ) -> Generator[None, None, T]:
        if self._last is not None and self._last[0] == key and self._last[1] > begun:
            found: T = self._last[2]
            return found
        self._begun += 1
        number = self._begun
        found = yield from make()
        self._last = (key, number, found)
        return found

    async def rows(
        self, views: Sequence[EndpointView], shape: Shape, visible: Visibility
    ) -> Sequence[Row]:
        """Return the visible models of endpoints in a form, newest first."""
        return await self._slices.run(self._seeing(views, shape, visible))

    def _merging(self, views: Sequence[EndpointView]) -> Generator[None, None, tuple[Merged, ...]]:
        """Return the models of endpoints, newest first."""
        key, held = _models_of(views)
        kept = self._merged.get(key)
        if kept is not None:
            self._merged.move_to_end(key)
            return kept[1]
        found = yield from merging(views)
        self._merged[key] = (held, found)
        if len(self._merged) > _MERGED_MAX:
            self._merged.popitem(last=False)
        return found

    def _seeing(
        self, views: Sequence[EndpointView], shape: Shape, visible: Visibility
    ) -> Generator[None, None, Sequence[Row]]:
        if not visible.lists:
            return ()
        rows = yield from self.making(views, shape)
        if visible.all_models:
            return rows
        seen: list[Row] = []
        for row in rows:
            yield
            if visible.matches(row[0].shown):
                seen.append(row)
        return seen

    def making(
        self, views: Sequence[EndpointView], shape: Shape
    ) -> Generator[None, None, tuple[Row, ...]]:
        """Return all models of endpoints in a form, newest first; for `shared`."""
        models, held = _models_of(views)
        memory = [view.resident for view in views] if shape.memory else []
        key = (shape, models, tuple(map(id, memory)))
        kept = self._rows.get(key)
        if kept is not None:
            self._rows.move_to_end(key)
            return kept[1]
        merged = yield from self._merging(views)
        by_name = {view.name: view for view in views}
        made: list[Row] = []
        size = 0
        for one in merged:
            yield
            row = shape.row(one, by_name)
            size += len(row[1]) + _ROW_BYTES
            made.append(row)
        rows = tuple(made)
        self._keep(key, ((held, memory), rows, size))
        return rows

    def _keep(self, key: Hashable, value: tuple[object, tuple[Row, ...], int]) -> None:
        self._rows[key] = value
        self._bytes += value[2]
        while self._bytes > _BYTES_MAX and len(self._rows) > 1:
            _, (_, _, size) = self._rows.popitem(last=False)
            self._bytes -= size


def _models_of(views: Sequence[EndpointView]) -> tuple[Hashable, object]:
    """Return a key that identifies the models of a set of endpoints, and the objects whose identity
    is part of it."""
    key = tuple(
        [
            (view.name, view.spec.type, view.profile and view.profile.name, id(view.models))
            for view in views
        ]
    )
    return key, [view.models for view in views]
