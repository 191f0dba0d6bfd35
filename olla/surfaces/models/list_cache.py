"""The merged lists of models, kept until what they are made of changes.

Merging and encoding ten thousand models takes tenths of a second, and clients ask for lists over
and over. So what was made is kept, as bytes for each model, and made in slices when it has to be
made anew.
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
"""Sets of endpoints whose merged models are kept."""
_BYTES_MAX = 32 * 1024 * 1024
"""Of all lists that are kept; the one that was made last is kept in any case."""
_ROW_BYTES = 120
"""What a row takes in memory besides its JSON, about."""

Row = tuple[Merged, bytes]
"""A model, and how a list shows it, as JSON."""


class Shape(msgspec.Struct, frozen=True):
    """How a list shows a model: as `make` makes it, which takes the endpoints by name as well.
    `memory` says that it depends on what is in memory."""

    make: Callable[[Merged, Mapping[str, EndpointView]], Any]
    memory: bool = False

    def row(self, one: Merged, views: Mapping[str, EndpointView]) -> Row:
        """A model's row."""
        made = self.make(one, views)
        return one, made if isinstance(made, bytes) else msgspec.json.encode(made)


class ListCache:
    """Makes and keeps merged lists. One for each router."""

    def __init__(self) -> None:
        self._slices = Slices()
        # Beside each value are the objects by whose identity it was kept: as long as they are
        # held, no other object can have their place in memory.
        self._merged: OrderedDict[Hashable, tuple[object, tuple[Merged, ...]]] = OrderedDict()
        self._rows: OrderedDict[Hashable, tuple[object, tuple[Row, ...], int]] = OrderedDict()
        self._bytes = 0
        self._begun = 0
        """How many pieces of shared work were begun."""
        self._last: tuple[Hashable, int, Any] | None = None
        """What was asked for last, which number it had, and what came of it."""

    async def shared(self, key: Hashable, make: Callable[[], Generator[None, None, T]]) -> T:
        """What long work returns. Callers that ask for the same (`key`) while others wait share
        one result, which was begun after they asked: a hundred at once cost two."""
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
        """The models of these endpoints in a shape, as far as they may be seen, newest first."""
        return await self._slices.run(self._seeing(views, shape, visible))

    def _merging(self, views: Sequence[EndpointView]) -> Generator[None, None, tuple[Merged, ...]]:
        """The models of these endpoints, newest first."""
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
        """All models of these endpoints in a shape, newest first: part of work for `shared`."""
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
    """What tells apart the models of one set of endpoints from another's, and the objects whose
    identity is part of it."""
    key = tuple(
        [
            (view.name, view.spec.type, view.profile and view.profile.name, id(view.models))
            for view in views
        ]
    )
    return key, [view.models for view in views]
