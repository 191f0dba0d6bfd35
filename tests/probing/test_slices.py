"""Long work does not block the event loop."""

import asyncio
from collections.abc import Generator

import pytest

from olla.probing import slices
from olla.probing.slices import Slices


def counting(most: int, seen: list[object], mark: object) -> Generator[None, None, int]:
    """Do a number of steps, and record each."""
    for _ in range(most):
        seen.append(mark)
        yield
    return most


async def turns(seen: list[object]) -> None:
    """Record each iteration of the loop."""
    while True:
        seen.append("turn")
        await asyncio.sleep(0)


async def test_the_loop_runs_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here after every step, because each step takes a whole slice."""
    monkeypatch.setattr(slices, "_SLICE", 0.0)
    seen: list[object] = []
    turning = asyncio.create_task(turns(seen))
    assert await Slices().run(counting(5, seen, 1)) == 5
    turning.cancel()
    assert [mark for mark in seen if mark == 1] == [1] * 5
    assert "1, 1" not in str(seen)


async def test_short_work_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finishes within one iteration of the loop."""
    monkeypatch.setattr(slices, "_SLICE", 60.0)
    seen: list[object] = []
    turning = asyncio.create_task(turns(seen))
    await Slices().run(counting(1000, seen, 1))
    turning.cancel()
    assert set(seen) == {1}


async def test_work_runs_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise many at once would fill each iteration of the loop."""
    monkeypatch.setattr(slices, "_SLICE", 0.0)
    seen: list[object] = []
    one = Slices()
    await asyncio.gather(*(one.run(counting(3, seen, mark)) for mark in range(4)))
    assert seen == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


async def test_failed_work_does_not_block_the_next() -> None:
    """Its error is raised to its caller only."""

    def failing() -> Generator[None, None, int]:
        yield
        raise ZeroDivisionError

    one = Slices()
    with pytest.raises(ZeroDivisionError):
        await one.run(failing())
    assert await one.run(counting(2, [], 1)) == 2


async def test_cancelled_work_does_not_block_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may hang up while its list is being made."""
    monkeypatch.setattr(slices, "_SLICE", 0.0)
    one, seen = Slices(), []
    leaving = asyncio.create_task(one.run(counting(10**9, seen, 1)))
    while not seen:
        await asyncio.sleep(0)
    leaving.cancel()
    assert await one.run(counting(2, [], 1)) == 2
