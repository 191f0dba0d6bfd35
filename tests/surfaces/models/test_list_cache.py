"""Merged lists are made once, kept, and shown as far as they may be seen."""

import asyncio
import json
import re
from collections.abc import Generator
from typing import Any

import msgspec
import pytest

from olla.access.visibility import Visibility
from olla.fleet.snapshot import EndpointView, resident_by_name
from olla.probing import slices
from olla.surfaces.models import list_cache
from olla.surfaces.models.list_cache import ListCache, Shape
from olla.surfaces.models.merge import Merged, unified_model
from tests.surfaces.known_fleet import loaded, tag, view

ALL = Visibility()


class Counted:
    """A shape that counts what it makes."""

    def __init__(self) -> None:
        self.made = 0
        self.shape = Shape(self._make)

    def _make(self, one: Merged, views: Any) -> dict[str, Any]:
        self.made += 1
        return {"name": one.model.name}


def fleet(*names: str) -> list[EndpointView]:
    """Two endpoints with these models."""
    return [view("a", *(tag(name) for name in names)), view("b", *(tag(name) for name in names))]


async def names(kept: ListCache, views: Any, shape: Shape, visible: Visibility = ALL) -> list[str]:
    """What is shown."""
    return [json.loads(row[1])["name"] for row in await kept.rows(views, shape, visible)]


async def test_a_list_is_made_once() -> None:
    """Also for clients that ask at the same time; and anew when an endpoint's list is another."""
    kept, counted = ListCache(), Counted()
    views = fleet("x", "y")
    asked = [names(kept, views, counted.shape) for _ in range(5)]
    assert await asyncio.gather(*asked) == [["x", "y"]] * 5
    assert counted.made == 2
    views = [views[0], msgspec.structs.replace(views[1], last_error="something else is new")]
    assert await names(kept, views, counted.shape) == ["x", "y"]
    assert counted.made == 2
    assert await names(kept, [views[0], view("b", tag("z"))], counted.shape) == ["x", "y", "z"]
    assert counted.made == 5


async def test_what_is_in_memory_counts_where_it_is_shown() -> None:
    """And only there."""
    kept, shape = ListCache(), Shape(unified_model, memory=True)
    (one,) = [view("a", tag("x:latest"))]

    async def state() -> str:
        (row,) = await kept.rows([one], shape, ALL)
        found: str = json.loads(row[1])["olla"]["availability"][0]["state"]
        return found

    assert await state() == "available"
    resident = resident_by_name([loaded("x:latest")], one.models)
    one = msgspec.structs.replace(one, resident=resident)
    assert await state() == "resident"


async def test_only_what_may_be_seen_is_shown() -> None:
    """By any spelling; nothing without the right to lists."""
    kept, counted = ListCache(), Counted()
    views = fleet("x:latest", "Y:1b")
    only_y = Visibility(models=re.compile("y:.*"))
    assert await names(kept, views, counted.shape, only_y) == ["Y:1b"]
    assert await names(kept, views, counted.shape, Visibility(lists=False)) == []
    assert await names(kept, views, counted.shape) == ["x:latest", "Y:1b"]
    assert counted.made == 2


async def test_callers_that_wait_share_what_is_made_after_they_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And none gets what was begun before it asked, nor what another key is for."""
    monkeypatch.setattr(slices, "_SLICE", 0.0)
    kept = ListCache()
    begun: list[str] = []
    held = True

    def work(key: str) -> Generator[None, None, int]:
        begun.append(key)
        number = len(begun)
        while held:
            yield
        return number

    first = asyncio.create_task(kept.shared("a", lambda: work("a")))
    while not begun:
        await asyncio.sleep(0)
    later = [asyncio.create_task(kept.shared(key, lambda key=key: work(key))) for key in "aaab"]
    await asyncio.sleep(0)
    held = False
    assert await asyncio.gather(first, *later) == [1, 2, 2, 2, 3]
    assert begun == ["a", "a", "b"]


async def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes of lists, and in sets of endpoints; the newest is kept."""
    monkeypatch.setattr(list_cache, "_BYTES_MAX", 1000)
    kept, counted = ListCache(), Counted()
    fleets = [fleet(f"x{number}") for number in range(20)]
    for views in fleets:
        await names(kept, views, counted.shape)
    assert kept._bytes <= 1000
    assert len(kept._merged) <= 8
    made = counted.made
    await names(kept, fleets[-1], counted.shape)
    assert counted.made == made
    await names(kept, fleets[0], counted.shape)
    assert counted.made == made + 1
