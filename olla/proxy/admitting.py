"""The dispatcher on the event loop: waiting is a future, time is a timer, a load is a task.

The only shell of production around `admission.Dispatcher`. Tells it what happens, does at once
what it asks for, and decides nothing.
"""

import asyncio
from collections.abc import Callable

from olla.admission.dispatcher import Dispatcher
from olla.admission.tickets import Answer, BeginLoad, Granted, Lease, Refused, Ticket
from olla.clock import Clock
from olla.failures import Failure
from olla.fleet.line import Loading
from olla.fleet.snapshot import Snapshot
from olla.proxy.loading import ModelLoads
from olla.proxy.upstream import Pool
from olla.routing.decision import Refuse
from olla.routing.features import Features
from olla.routing.policy import Policy

__all__ = ["Admission"]


class Admission:
    """Lets requests in, one at a time, when the dispatcher says so."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock: Clock,
        pool: Pool,
        *,
        snapshot: Callable[[], Snapshot],
        load_timeout: float,
        new_id: Callable[[], str],
        loaded: Callable[[str, float, Failure | None], None] = lambda *_: None,
    ) -> None:
        """`load_timeout` bounds a load of olla's own, in seconds (0: no bound); `loaded` is told
        which endpoint has ended one, after how many seconds, and how."""
        self.dispatcher = dispatcher
        self._clock = clock
        self._snapshot = snapshot
        self._loaded = loaded
        self._loop = asyncio.get_running_loop()
        self._futures: dict[Ticket, asyncio.Future[Lease | Refuse]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loads = ModelLoads(pool, self._load_ended, timeout=load_timeout, new_id=new_id)

    async def enter(
        self,
        features: Features,
        asked_for: str,
        *,
        policy: Policy | None = None,
        counted: bool = True,
        asked_at: float | None = None,
    ) -> Lease | Refuse:
        """A lease, as soon as there is one, or a refusal. See `Dispatcher.ask`.

        When cancelled, the place in the queue is given up, or the lease if it came meanwhile.
        """
        dispatcher = self.dispatcher
        granted = dispatcher.ask(
            features,
            self._snapshot(),
            asked_for,
            self._clock.now(),
            policy=policy,
            counted=counted,
            asked_at=asked_at,
        )
        if not isinstance(granted, Ticket):
            self._obey()
            return granted
        future: asyncio.Future[Lease | Refuse] = self._loop.create_future()
        self._futures[granted] = future
        self._obey()
        try:
            return await future
        except asyncio.CancelledError:
            if self._futures.pop(granted, None) is not None:
                dispatcher.leave(granted, self._clock.now())
                self._obey()
            elif future.done() and not future.cancelled():
                outcome = future.result()
                if isinstance(outcome, Lease):
                    self.release(outcome)
            raise

    def began(self, lease: Lease) -> None:
        """The first byte of the answer came."""
        self.dispatcher.began(lease, self._clock.now())
        self._obey()

    def release(self, lease: Lease, answer: Answer | None = None) -> None:
        """The request is over. See `Dispatcher.release`."""
        self.dispatcher.release(lease, self._clock.now(), answer)
        self._obey()

    def changed(self, snapshot: Snapshot) -> None:
        """Something is new of the fleet."""
        self.dispatcher.changed(snapshot, self._clock.now())
        self._obey()

    async def close(self) -> None:
        """Give up all loads of olla's own. Requests that wait have been answered before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._loads.close()

    def _load_ended(self, loading: Loading, failure: Failure | None) -> None:
        now = self._clock.now()
        self.dispatcher.load_ended(loading, now, failure)
        self._loaded(loading.line.twin.name, now - loading.began, failure)
        self._obey()

    def _tick(self) -> None:
        self._timer = None
        self.dispatcher.tick(self._clock.now())
        self._obey()

    def _obey(self) -> None:
        """Do what the dispatcher wants done."""
        for action in self.dispatcher.take_actions():
            if isinstance(action, Granted):
                self._futures.pop(action.ticket).set_result(action.lease)
            elif isinstance(action, Refused):
                self._futures.pop(action.ticket).set_result(action.refusal)
            elif isinstance(action, BeginLoad):
                self._loads.begin(action)
            else:
                self._loads.abandon(action.loading)
        if self._timer is None:
            at = self.dispatcher.next_tick(self._clock.now())
            if at is not None:
                self._timer = self._loop.call_later(at - self._clock.now(), self._tick)
