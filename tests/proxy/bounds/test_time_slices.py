"""Long work in short steps on the event loop."""

import asyncio
from collections.abc import Generator

import pytest

from olla.proxy.bounds.time_slices import SLICE, TimeSlices


class StepClock:
    """A clock that each step advances."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        """The time."""
        return self.time

    def wall(self) -> float:
        """The time."""
        return self.time


def steps(
    clock: StepClock, seconds: float, count: int, done: list[str], name: str
) -> Generator[None, None, str]:
    """Run `count` steps of `seconds` each."""
    for _ in range(count):
        clock.time += seconds
        done.append(name)
        yield
    return name


async def test_one_slice_runs_in_each_iteration_of_the_loop() -> None:
    """All other ready callbacks run between two slices."""
    clock = StepClock()
    slices = TimeSlices(clock)
    done: list[str] = []

    async def others() -> None:
        while done.count("long") < 40:
            done.append("other")
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    assert await slices.run(steps(clock, SLICE / 4, 40, done, "long")) == "long"
    await other
    runs = "".join(each[0] for each in done).split("o")
    assert max(map(len, runs)) <= 4
    assert done.count("other") >= 9


async def test_several_bodies_take_turns() -> None:
    """A short body does not wait for a long one."""
    clock = StepClock()
    slices = TimeSlices(clock)
    done: list[str] = []
    order: list[str] = []

    async def read(name: str, count: int) -> None:
        order.append(await slices.run(steps(clock, SLICE, count, done, name)))

    await asyncio.gather(read("a", 50), read("b", 3), read("c", 10))
    assert order == ["b", "c", "a"]
    assert done[:9] == ["a", "b", "c"] * 3


async def test_an_exception_of_a_step_reaches_the_caller() -> None:
    """And the next body can run."""
    clock = StepClock()
    slices = TimeSlices(clock)

    def broken() -> Generator[None, None, None]:
        yield
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await slices.run(broken())
    assert await slices.run(steps(clock, 0.0, 3, [], "next")) == "next"


async def test_cancelled_work_stops_and_releases_its_turn() -> None:
    """A body whose client disconnected is not parsed to the end."""
    clock = StepClock()
    slices = TimeSlices(clock)
    done: list[str] = []
    left = asyncio.create_task(slices.run(steps(clock, SLICE, 1000, done, "left")))
    while len(done) < 3:
        await asyncio.sleep(0)
    left.cancel()
    assert await slices.run(steps(clock, SLICE, 5, done, "next")) == "next"
    await asyncio.gather(left, return_exceptions=True)
    assert left.cancelled()
    assert done.count("left") <= 4
