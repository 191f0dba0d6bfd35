"""A request's work on a simulated node: waiting for its slot, reading the prompt, saying words.

Joins the pure scheduler to a clock and timers. Knows jobs, not HTTP.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable

import msgspec

from olla.clock import Clock
from olla.simulation.catalogue import ModelSpec
from olla.simulation.node import Job, Node, NodeLimits, Outcome, Refused, Resident, Started

__all__ = ["Busy", "Measures", "Workshop"]

_REFERENCE_SIZE = 4.0e9
"""Bytes of the model for which the rates are given; others are slower or faster by their size."""


class Busy(Exception):
    """The queue for loads is full."""


class Measures(msgspec.Struct):
    """What the last record of an answer tells. Durations are simulated seconds."""

    started: float
    load: float = 0.0
    prompt_tokens: int = 0
    prompt: float = 0.0
    tokens: int = 0
    decode: float = 0.0
    total: float = 0.0


class Workshop:
    """The scheduler in real time, `scale` real seconds to a simulated one."""

    def __init__(
        self,
        limits: NodeLimits,
        clock: Clock,
        *,
        scale: float,
        tokens_per_second: float,
        prompt_tokens_per_second: float,
    ) -> None:
        self.node = Node(limits)
        self._clock = clock
        self._scale = scale
        self._rate = tokens_per_second
        self._prompt_rate = prompt_tokens_per_second
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Started]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.running = 0
        """Jobs that have a slot."""
        self.cancelled = 0
        """Jobs whose client left while they had one."""
        self.tokens = 0
        """Tokens said, ever."""

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return self._clock.now() / self._scale

    async def sleep(self, seconds: float) -> None:
        """Let simulated seconds pass."""
        await asyncio.sleep(seconds * self._scale)

    def resident(self) -> list[Resident]:
        """What is in memory now."""
        self._perform(self.node.advance(self.now))
        return self.node.resident(self.now)

    def wall(self, at: float) -> float:
        """A simulated time as Unix seconds."""
        return self._clock.wall() + (at - self.now) * self._scale

    def unload(self, model: ModelSpec) -> None:
        """Unload a model when it is idle."""
        self._perform(self.node.unload(model, self.now))

    async def speak(
        self,
        model: ModelSpec,
        options: tuple[tuple[str, float], ...],
        keep_alive: float | None,
        prompt_tokens: int,
        words: Iterable[str],
        measures: Measures,
    ) -> AsyncGenerator[str, None]:
        """Wait for a slot, read the prompt, and say `words` at the model's rate.

        `measures` is complete when this ends. Closing it gives the slot back.

        Raises:
            Busy: there is no place in the queue.
        """
        job = Job(next(self._ids), model, options, keep_alive)
        started = await self._slot(job)
        self.running += 1
        done = False
        try:
            measures.load = started.load_seconds
            measures.prompt_tokens = prompt_tokens
            share = model.size / _REFERENCE_SIZE
            begun = self.now
            if prompt_tokens:
                await self.sleep(prompt_tokens * share / self._prompt_rate)
            measures.prompt = self.now - begun
            begun = self.now
            for word in words:
                due = begun + (measures.tokens + 1) * share / self._rate
                if due > self.now:
                    await self.sleep(due - self.now)
                measures.tokens += 1
                self.tokens += 1
                yield word
            measures.decode = self.now - begun
            done = True
        finally:
            self.running -= 1
            self.cancelled += not done
            measures.total = self.now - measures.started
            self._perform(self.node.finish(job, self.now))

    async def _slot(self, job: Job) -> Started:
        future: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._waiting[job.id] = future
        self._perform(self.node.submit(job, self.now))
        try:
            return await future
        except asyncio.CancelledError:
            self._perform(self.node.leave(job, self.now))
            raise
        finally:
            self._waiting.pop(job.id, None)

    def _perform(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Started | Refused):
                future = self._waiting.get(outcome.job.id)
                if future is None or future.done():
                    continue
                if isinstance(outcome, Started):
                    future.set_result(outcome)
                else:
                    future.set_exception(Busy())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.node.next_event()
        if at is not None:
            delay = max(0.0, (at - self.now) * self._scale)
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        self._perform(self.node.advance(max(self.now, self.node.next_event() or 0.0)))

    def close(self) -> None:
        """Set no more timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
