"""Execute a request on a simulated node: wait for a slot, read the prompt, generate words.

Connects the pure scheduler with a clock and timers. It knows jobs, not HTTP.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import assert_never

import msgspec

from olla.clock import Clock
from olla.simulation.events import (
    Job,
    JobRefused,
    LoadAborted,
    LoadBegan,
    ModelLoaded,
    NodeLimits,
    Outcome,
    Resident,
    Started,
    Unloaded,
)
from olla.simulation.load_options import Options
from olla.simulation.model_catalogue import ModelSpec
from olla.simulation.node import Node

__all__ = ["Busy", "Executor", "Measures"]

_REFERENCE_SIZE = 4.0e9
"""Bytes of the model for which the rates are given. Other models are slower or faster by size."""
_PROCESSOR_SLOWDOWN = 10.0
"""The slowdown of the part of a model that does not fit into video memory."""
_FOREVER_SECONDS = 9_223_372_036.0
"""Ollama's longest duration, 292 years, is the expiry of models that never expire."""
_TOKENS_BETWEEN_TURNS = 32
"""Tokens generated in a row before other tasks get a turn, without pacing."""


class Busy(Exception):
    """The queue for loads is full."""


class Measures(msgspec.Struct):
    """What the last record of an answer tells. Durations are simulated seconds,
    which answers tell as real ones.

    Those for prompt and tokens are what the rates say, without the timers' noise; `load` and
    `total` contain the time that was waited.
    """

    started: float
    load: float = 0.0
    prompt_tokens: int = 0
    prompt: float = 0.0
    tokens: int = 0
    decode: float = 0.0
    total: float = 0.0


class Executor:
    """The scheduler in real time, `scale` real seconds to a simulated one.

    Every slot has the full rate: decoding is bound by memory bandwidth, so a few sequences in one
    batch hardly slow each other.
    """

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
        self.scale = scale
        self._clock = clock
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
        return self._clock.now() / self.scale

    async def sleep(self, seconds: float) -> None:
        """Let simulated seconds pass."""
        await asyncio.sleep(seconds * self.scale)

    def resident(self) -> list[Resident]:
        """What is in memory now."""
        self._perform(self.node.advance(self.now))
        return self.node.resident(self.now)

    def wall(self, at: float) -> float:
        """A simulated time as Unix seconds."""
        return self._clock.wall() + min((at - self.now) * self.scale, _FOREVER_SECONDS)

    def unload(self, model: ModelSpec) -> None:
        """Unload a model when it is idle."""
        self._perform(self.node.unload(model, self.now))

    async def load(
        self, model: ModelSpec, options: Options, keep_alive: float | None, measures: Measures
    ) -> None:
        """Have a model loaded, without a slot.

        Raises:
            Busy: there is no place in the queue.
        """
        async with self._admitted(self._job(model, options, keep_alive, False), measures):
            pass

    async def speak(
        self,
        model: ModelSpec,
        options: Options,
        keep_alive: float | None,
        prompt_tokens: int,
        words: Iterable[str],
        measures: Measures,
    ) -> AsyncGenerator[str, None]:
        """Wait for a slot, read the prompt, and say `words` at the model's rate.

        Empty words take their time and are not said. `measures` is complete when this ends.
        Closing it gives the slot back.

        Raises:
            Busy: there is no place in the queue.
        """
        job = self._job(model, options, keep_alive, True)
        async with self._admitted(job, measures) as started:
            self.running += 1
            done = False
            try:
                measures.prompt_tokens = prompt_tokens
                on_processor = (1 - started.gpu_share) * _PROCESSOR_SLOWDOWN
                cost = model.size / _REFERENCE_SIZE * (started.gpu_share + on_processor)
                measures.prompt = prompt_tokens * cost / self._prompt_rate
                begun = self.now + measures.prompt
                if prompt_tokens:
                    await self.sleep(measures.prompt)
                for word in words:
                    measures.tokens += 1
                    measures.decode = measures.tokens * cost / self._rate
                    pause = begun + measures.decode - self.now
                    if pause > 0:
                        await self.sleep(pause)
                    elif measures.tokens % _TOKENS_BETWEEN_TURNS == 0:
                        await asyncio.sleep(0)
                    self.tokens += 1
                    if word:
                        yield word
                done = True
            finally:
                self.running -= 1
                self.cancelled += not done

    def _job(
        self, model: ModelSpec, options: Options, keep_alive: float | None, needs_slot: bool
    ) -> Job:
        return Job(next(self._ids), model, options, keep_alive, needs_slot)

    @asynccontextmanager
    async def _admitted(self, job: Job, measures: Measures) -> AsyncIterator[Started]:
        """Wait until a job may work, and take it away from the node at the end."""
        future: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._waiting[job.id] = future
        try:
            self._perform(self.node.submit(job, self.now))
            started = await future
            measures.load = started.load_seconds
            yield started
        finally:
            del self._waiting[job.id]
            spent = measures.load + measures.prompt + measures.decode
            measures.total = max(self.now - measures.started, spent)
            self._perform(self.node.leave(job, self.now))

    def _perform(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case Started():
                    future = self._waiting.get(outcome.job.id)
                    if future is not None and not future.done():
                        future.set_result(outcome)
                case JobRefused():
                    future = self._waiting.get(outcome.job.id)
                    if future is not None and not future.done():
                        future.set_exception(Busy())
                case LoadBegan() | ModelLoaded() | LoadAborted() | Unloaded():
                    pass
                case never:
                    assert_never(never)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.node.next_event()
        if at is not None:
            delay = max(0.0, (at - self.now) * self.scale)
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        self._timer = None
        # A timer may fire a clock tick early: what it was set for is due now all the same.
        self._perform(self.node.advance(max(self.now, self.node.next_event() or 0.0)))

    def close(self) -> None:
        """Set no more timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
