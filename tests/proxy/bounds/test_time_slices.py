"""Work in short steps beside everything else."""

import asyncio
from collections.abc import Generator

import pytest

from olla.proxy.bounds.time_slices import SLICE, TimeSlices


class StepClock:
    """A clock that a step moves on."""

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
    """So many steps, each as long."""
    for _ in range(count):
        clock.time += seconds
        done.append(name)
        yield
    return name


async def test_a_turn_of_the_loop_has_a_slice_of_it() -> None:
    """Everything else that is ready runs between two slices, whoever has begun the work."""
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


async def test_several_take_turns() -> None:
    """Who has little to read does not wait for who has much."""
    clock = StepClock()
    slices = TimeSlices(clock)
    done: list[str] = []
    order: list[str] = []

    async def read(name: str, count: int) -> None:
        order.append(await slices.run(steps(clock, SLICE, count, done, name)))

    await asyncio.gather(read("a", 50), read("b", 3), read("c", 10))
    assert order == ["b", "c", "a"]
    assert done[:9] == ["a", "b", "c"] * 3


async def test_what_a_step_raises_reaches_who_waits_for_it() -> None:
    """And the turn goes to the next."""
    clock = StepClock()
    slices = TimeSlices(clock)

    def broken() -> Generator[None, None, None]:
        yield
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await slices.run(broken())
    assert await slices.run(steps(clock, 0.0, 3, [], "next")) == "next"


async def test_who_leaves_gives_up_its_turn() -> None:
    """Work whose client has gone is not finished."""
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
