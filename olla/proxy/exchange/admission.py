"""Run the dispatcher on the event loop, with callbacks, a timer and tasks for model loads.

The production shell around `admission.Dispatcher`: it reports events to the dispatcher and executes
the resulting actions at once. It makes no decisions.
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
"""Called at the end of each load, with None if it succeeded."""


class ModelLoader(Protocol):
    """Loads models on endpoints. See `background.model_loader`."""

    timeout: float
    """Time limit of a load in seconds, extended for loads expected to take long; 0 for none."""

    def begin(self, action: BeginLoad) -> None:
        """Start a load."""
        ...

    def abandon(self, loading: ModelLoad) -> None:
        """Cancel a load."""
        ...

    async def close(self) -> None:
        """Cancel all loads."""
        ...


class Admission:
    """Admits requests as the dispatcher decides."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock: Clock,
        loader: Callable[[LoadEnded], ModelLoader],
        *,
        snapshot: Callable[[], Snapshot],
        loaded: Callable[[str, float, Failure | None], None] = lambda *_: None,
    ) -> None:
        """`loader` creates the model loader and gets the callback for finished loads. `loaded` is
        called after each load with the endpoint's name, the seconds it took, and its failure."""
        self.dispatcher = dispatcher
        self._clock = clock
        self._snapshot = snapshot
        self._loaded = loaded
        self._loop = asyncio.get_running_loop()
        self._callbacks: dict[Ticket, Callable[[Lease | Refuse], None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loads = loader(self._load_ended)

    def enter(
        self,
        features: Features,
        requested_model: str,
        callback: Callable[[Lease | Refuse], None],
        policy: Policy | None = None,
        counted: bool = True,
        asked_at: float | None = None,
    ) -> Entered:
        """Request a lease. Returns a lease, a rejection or a ticket in the queue.

        After a ticket, `callback` is called with the lease or rejection, in a separate iteration of
        the loop, unless the ticket is cancelled with `leave`. See `Dispatcher.ask` for the
        arguments.
        """
        now = self._clock.now()
        entered = self.dispatcher.ask(
            features,
            self._snapshot(),
            requested_model,
            now,
            policy=policy,
            counted=counted,
            asked_at=asked_at,
        )
        match entered:
            case Lease() | Refuse():
                pass
            case Ticket():
                self._callbacks[entered] = callback
            case never:
                assert_never(never)
        if not self.dispatcher.quiet:
            self._execute_actions(now)
        return entered

    def leave(self, ticket: Ticket) -> None:
        """Cancel a ticket. A callback that is already scheduled is still called."""
        if self._callbacks.pop(ticket, None) is not None:
            now = self._clock.now()
            self.dispatcher.leave(ticket, now)
            self._execute_actions(now)

    def began(self, lease: Lease, now: float) -> None:
        """Report the first byte of a response."""
        self.dispatcher.began(lease, now)
        if not self.dispatcher.quiet:
            self._execute_actions(now)

    def release(self, lease: Lease, now: float, answer: AnswerStats | None = None) -> None:
        """Release a lease at the end of its attempt. See `Dispatcher.release`."""
        self.dispatcher.release(lease, now, answer)
        if not self.dispatcher.quiet:
            self._execute_actions(now)

    def changed(self, snapshot: Snapshot) -> Mapping[str, Exception]:
        """Report a new snapshot of the fleet. Returns the endpoints with invalid data."""
        now = self._clock.now()
        self.dispatcher.changed(snapshot, now)
        self._execute_actions(now)
        return self.dispatcher.twins.faults

    def set_load_timeout(self, timeout: float) -> None:
        """Set the time limit, in seconds, of loads that begin from now on; 0 for none."""
        self._loads.timeout = timeout

    def reconsider(self) -> None:
        """Price all queued requests again, after a change that is not in any snapshot."""
        now = self._clock.now()
        self.dispatcher.tick(now)
        self._execute_actions(now)

    async def close(self) -> None:
        """Cancel all loads that olla started. No request may be queued any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._loads.close()

    def _load_ended(self, loading: ModelLoad, failure: Failure | None) -> None:
        now = self._clock.now()
        self.dispatcher.load_ended(loading, now, failure)
        self._loaded(loading.instance.twin.name, now - loading.began, failure)
        self._execute_actions(now)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock.now()
        self.dispatcher.tick(now)
        self._execute_actions(now)

    def _execute_actions(self, now: float) -> None:
        """Execute the dispatcher's actions and set the timer for its next tick."""
        for action in self.dispatcher.take_actions():
            match action:
                case Granted():
                    # In a separate iteration: requests must not run in each other's call stack.
                    self._loop.call_soon(self._callbacks.pop(action.ticket), action.lease)
                case Refused():
                    self._loop.call_soon(self._callbacks.pop(action.ticket), action.refusal)
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
