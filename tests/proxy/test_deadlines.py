"""Coarse timers, shared."""

import asyncio

from olla.proxy.deadlines import Deadlines


class Waiting:
    """Something with a deadline, that may forget others when it is due."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.slot = 0.0
        self.due_at: list[float] = []
        self.deadlines = deadlines
        self.forgets: list[Waiting] = []

    def due(self) -> None:
        """Note it."""
        self.due_at.append(asyncio.get_running_loop().time())
        for each in self.forgets:
            self.deadlines.forget(each)


async def test_each_is_called_once_and_not_early() -> None:
    """The near ones within a twentieth of a second."""
    deadlines = Deadlines()
    now = asyncio.get_running_loop().time()
    waiting = [Waiting(deadlines) for _ in range(5)]
    for number, each in enumerate(waiting):
        deadlines.watch(each, now + 0.02 * number)
    await asyncio.wait_for(_until_empty(deadlines), 5)
    for number, each in enumerate(waiting):
        assert len(each.due_at) == 1
        assert each.due_at[0] >= now + 0.02 * number - 0.002
        assert each.slot == 0.0


async def test_whoever_is_forgotten_is_not_called() -> None:
    """Neither before nor while others in the same slot are."""
    deadlines = Deadlines()
    now = asyncio.get_running_loop().time()
    first, second, third = (Waiting(deadlines) for _ in range(3))
    first.forgets = [second]
    for each in (first, second, third):
        deadlines.watch(each, now + 0.01)
    deadlines.forget(third)
    deadlines.forget(third)
    await asyncio.wait_for(_until_empty(deadlines), 5)
    assert [len(each.due_at) for each in (first, second, third)] == [1, 0, 0]


async def test_a_deadline_can_be_moved_both_ways() -> None:
    """The last one counts."""
    deadlines = Deadlines()
    now = asyncio.get_running_loop().time()
    sooner, later = Waiting(deadlines), Waiting(deadlines)
    deadlines.watch(sooner, now + 500)
    deadlines.watch(sooner, now + 0.01)
    deadlines.watch(later, now + 0.01)
    deadlines.watch(later, now + 500)
    while not sooner.due_at:
        await asyncio.sleep(0.01)
    assert not later.due_at
    assert len(deadlines) == 1
    deadlines.forget(later)
    deadlines.close()


async def test_many_far_deadlines_share_few_timers() -> None:
    """Those of a second are one slot."""
    deadlines = Deadlines()
    now = asyncio.get_running_loop().time()
    for number in range(1000):
        deadlines.watch(Waiting(deadlines), now + 600 + number / 1000)
    assert len(deadlines) == 1000
    assert len(deadlines._slots) <= 2
    deadlines.close()


async def _until_empty(deadlines: Deadlines) -> None:
    while len(deadlines):
        await asyncio.sleep(0.01)
