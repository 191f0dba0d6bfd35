"""The dispatcher on the event loop: waiting is a callback, time is a timer, a load is a task.

The only shell of production around `admission.Dispatcher`. Tells it what happens, does at once
what it asks for, and decides nothing.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol, assert_never

from olla.admission.dispatcher import Dispatcher
from olla.admission.queue_types import (
    AbandonLoad,
    AnswerStats,
    BeginLoad,
    Entered,
    Granted,
    Lease,
    Refused,
    Ticket,
)
from olla.clock import Clock
from olla.failures import Failure
from olla.fleet.instance import ModelLoad
from olla.fleet.snapshot import Snapshot
from olla.routing.decision import Refuse
from olla.routing.features import Features
from olla.routing.policy import Policy

__all__ = ["Admission", "LoadEnded", "ModelLoader"]

LoadEnded = Callable[[ModelLoad, Failure | None], None]
"""Called at the end of each load, with None for a good one."""


class ModelLoader(Protocol):
    """Loads models on endpoints. See `background.model_loader`."""

    timeout: float
    """Seconds that a load may take at least; 0 for no bound."""

    def begin(self, action: BeginLoad) -> None:
        """Start a load."""
        ...

    def abandon(self, loading: ModelLoad) -> None:
        """Give a load up."""
        ...

    async def close(self) -> None:
        """Give up all loads."""
        ...


class Admission:
    """Lets requests in, one at a time, when the dispatcher says so."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock: Clock,
        loader: Callable[[LoadEnded], ModelLoader],
        *,
        snapshot: Callable[[], Snapshot],
        loaded: Callable[[str, float, Failure | None], None] = lambda *_: None,
    ) -> None:
        """`loader` makes the loader that calls the function it is given at the end of each load;
        `loaded` is called with the endpoint of a load that ended, its seconds, and its failure."""
        self.dispatcher = dispatcher
        self._clock = clock
        self._snapshot = snapshot
        self._loaded = loaded
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Ticket, Callable[[Lease | Refuse], None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loads = loader(self._load_ended)

    def enter(
        self,
        features: Features,
        asked_for: str,
        granted: Callable[[Lease | Refuse], None],
        policy: Policy | None = None,
        counted: bool = True,
        asked_at: float | None = None,
    ) -> Entered:
        """A lease or a refusal, or else a place in the queue. See `Dispatcher.ask`.

        Whoever gets a ticket is told through `granted`, in a turn of the loop of its own, or
        gives the place up with `leave`.
        """
        now = self._clock.now()
        entered = self.dispatcher.ask(
            features,
            self._snapshot(),
            asked_for,
            now,
            policy=policy,
            counted=counted,
            asked_at=asked_at,
        )
        match entered:
            case Lease() | Refuse():
                pass
            case Ticket():
                self._waiting[entered] = granted
            case never:
                assert_never(never)
        if not self.dispatcher.quiet:
            self._obey(now)
        return entered

    def leave(self, ticket: Ticket) -> None:
        """Whoever waited does not any more. One whose turn had come may still be told so."""
        if self._waiting.pop(ticket, None) is not None:
            now = self._clock.now()
            self.dispatcher.leave(ticket, now)
            self._obey(now)

    def began(self, lease: Lease, now: float) -> None:
        """The first byte of the answer came."""
        self.dispatcher.began(lease, now)
        if not self.dispatcher.quiet:
            self._obey(now)

    def release(self, lease: Lease, now: float, answer: AnswerStats | None = None) -> None:
        """The request is over. See `Dispatcher.release`."""
        self.dispatcher.release(lease, now, answer)
        if not self.dispatcher.quiet:
            self._obey(now)

    def changed(self, snapshot: Snapshot) -> Mapping[str, Exception]:
        """Something is new of the fleet. Returns the endpoints whose data cannot be taken in."""
        now = self._clock.now()
        self.dispatcher.changed(snapshot, now)
        self._obey(now)
        return self.dispatcher.twins.faults

    def bound_loads(self, timeout: float) -> None:
        """Loads that begin from now on may take so many seconds; 0 for any number."""
        self._loads.timeout = timeout

    def reconsider(self) -> None:
        """Something has changed that no snapshot tells: price those who wait again."""
        now = self._clock.now()
        self.dispatcher.tick(now)
        self._obey(now)

    async def close(self) -> None:
        """Give up all loads of olla's own. Requests that wait have been answered before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._loads.close()

    def _load_ended(self, loading: ModelLoad, failure: Failure | None) -> None:
        now = self._clock.now()
        self.dispatcher.load_ended(loading, now, failure)
        self._loaded(loading.instance.twin.name, now - loading.began, failure)
        self._obey(now)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock.now()
        self.dispatcher.tick(now)
        self._obey(now)

    def _obey(self, now: float) -> None:
        """Do what the dispatcher wants done."""
        for action in self.dispatcher.take_actions():
            match action:
                case Granted():
                    # In a turn of its own: what one request does next is not this one's affair.
                    self._loop.call_soon(self._waiting.pop(action.ticket), action.lease)
                case Refused():
                    self._loop.call_soon(self._waiting.pop(action.ticket), action.refusal)
                case BeginLoad():
                    self._loads.begin(action)
                case AbandonLoad():
                    self._loads.abandon(action.loading)
                case never:
                    assert_never(never)
        if self._timer is None:
            at = self.dispatcher.next_tick(now)
            if at is not None:
                self._timer = self._loop.call_later(at - now, self._tick)
