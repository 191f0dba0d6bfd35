"""Long work lets the event loop turn."""

import asyncio
from collections.abc import Generator

import pytest

from olla.probing import slices
from olla.probing.slices import Slices


def counting(most: int, seen: list[object], mark: object) -> Generator[None, None, int]:
    """Work of so many steps."""
    for _ in range(most):
        seen.append(mark)
        yield
    return most


async def turns(seen: list[object]) -> None:
    """Marks each turn of the loop."""
    while True:
        seen.append("turn")
        await asyncio.sleep(0)


async def test_the_loop_turns_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each step, where each takes a whole slice."""
    monkeypatch.setattr(slices, "_SLICE", 0.0)
    seen: list[object] = []
    turning = asyncio.create_task(turns(seen))
    assert await Slices().run(counting(5, seen, 1)) == 5
    turning.cancel()
    assert [mark for mark in seen if mark == 1] == [1] * 5
    assert "1, 1" not in str(seen)


async def test_short_work_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for no turn."""
    monkeypatch.setattr(slices, "_SLICE", 60.0)
    seen: list[object] = []
    turning = asyncio.create_task(turns(seen))
    await Slices().run(counting(1000, seen, 1))
    turning.cancel()
    assert set(seen) == {1}


async def test_one_work_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or many at once would fill each turn of the loop."""
    monkeypatch.setattr(slices, "_SLICE", 0.0)
    seen: list[object] = []
    one = Slices()
    await asyncio.gather(*(one.run(counting(3, seen, mark)) for mark in range(4)))
    assert seen == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


async def test_work_that_fails_holds_nobody_up() -> None:
    """Its error is whose it is, and the next one runs."""

    def failing() -> Generator[None, None, int]:
        yield
        raise ZeroDivisionError

    one = Slices()
    with pytest.raises(ZeroDivisionError):
        await one.run(failing())
    assert await one.run(counting(2, [], 1)) == 2


async def test_work_that_is_given_up_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that leaves while its list is made."""
    monkeypatch.setattr(slices, "_SLICE", 0.0)
    one, seen = Slices(), []
    leaving = asyncio.create_task(one.run(counting(10**9, seen, 1)))
    while not seen:
        await asyncio.sleep(0)
    leaving.cancel()
    assert await one.run(counting(2, [], 1)) == 2
