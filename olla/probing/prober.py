"""All endpoints under watch, and the snapshot of the fleet that comes of it."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from structlog.typing import FilteringBoundLogger

from olla.clock import Clock
from olla.failures import Failure
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.probing.inventory import Question
from olla.probing.probe_client import ProbeClient
from olla.probing.slices import Slices
from olla.probing.watch import Watch
from olla.tasks import spawn

__all__ = ["Prober"]

_NO_FAULTS: Mapping[str, Exception] = {}


class Prober:
    """Watches endpoints; publishes `snapshot`, a new one whenever something was learnt.

    `list_interval` is how often an endpoint's models are read, in seconds (it is asked that often
    whatever its own interval); `rng` makes the jitter; `changed` is called with every new snapshot
    and returns the endpoints whose data it cannot take in; `lost` is called with the name of an
    endpoint that has died and the reason to think so.
    """

    def __init__(
        self,
        specs: Sequence[EndpointSpec],
        clock: Clock,
        *,
        rng: random.Random,
        list_interval: float,
        logger: FilteringBoundLogger,
        changed: Callable[[Snapshot], Mapping[str, Exception]] = lambda _: _NO_FAULTS,
        lost: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self.list_interval = list_interval
        self._logger = logger
        self._changed = changed
        self._lost = lost
        self._specs = tuple(specs)
        self._asker: ProbeClient | None = None
        self._slices = Slices()
        self._watches: dict[str, Watch] = {}
        self.snapshot = Snapshot.of(
            EndpointView(spec=spec, position=at) for at, spec in enumerate(self._specs)
        )
        """The fleet as it is known now."""

    async def start(self) -> None:
        """Begin to ask all endpoints."""
        self._asker = ProbeClient(self._clock)
        await self.set_specs(self._specs)

    async def stop(self) -> None:
        """Ask no more."""
        await asyncio.gather(*(watch.stop() for watch in self._watches.values()))
        if self._asker is not None:
            await self._asker.close()

    async def set_specs(
        self,
        specs: Sequence[EndpointSpec],
        *,
        patience: float = 0.0,
        at_once: Callable[[], None] = lambda: None,
    ) -> None:
        """Watch these endpoints from now on. Call it between `start` and `stop`, one at a time.

        What is known of those that stay as they were is kept; one that is configured otherwise
        under its old name starts anew. The new ones are asked first, for `patience` seconds at
        most, and all change at one moment, together with what `at_once` does. When that raises,
        nothing has changed.
        """
        assert self._asker is not None
        fresh: dict[str, Watch] = {}
        for position, spec in enumerate(specs):
            watch = self._watches.get(spec.name)
            if watch is None or watch.spec != spec:
                fresh[spec.name] = self._watch(self._asker, spec, position)
        for watch in fresh.values():
            watch.start()
        try:
            if fresh and patience:
                rounds = [spawn(each.first_round()) for each in fresh.values()]
                await asyncio.wait(rounds, timeout=patience)
                for each in rounds:
                    each.cancel()
            at_once()
        except BaseException:
            await asyncio.gather(*(watch.stop() for watch in fresh.values()))
            raise
        old, self._watches = self._watches, {}
        for position, spec in enumerate(specs):
            watch = fresh.get(spec.name) or old.pop(spec.name)
            watch.move_to(position)
            self._watches[spec.name] = watch
        self._publish(Snapshot.of(watch.view for watch in self._watches.values()))
        await asyncio.gather(*(watch.stop() for watch in old.values()))

    async def first_pass(self) -> None:
        """Wait until every endpoint was asked once."""
        await asyncio.gather(*(watch.first_round() for watch in self._watches.values()))

    async def probed(self, endpoint: str) -> EndpointView:
        """Ask an endpoint at once, and wait for what it says.

        Raises:
            KeyError: there is no such endpoint.
        """
        watch = self._watches[endpoint]
        await watch.next_round()
        return watch.view

    def probe_now(self, endpoint: str) -> None:
        """Ask an endpoint at once: something on it has changed."""
        watch = self._watches.get(endpoint)
        if watch is not None:
            watch.ask_now()

    def observe(self, endpoint: str, failure: Failure | None, model: str | None) -> None:
        """An attempt against an endpoint, for a model, ended well (None) or with a failure.

        Attempts whose client hung up are not to be told: they say nothing of the endpoint.
        """
        watch = self._watches.get(endpoint)
        if watch is not None:
            watch.observe(failure, model)

    async def refresh(self, what: str, max_age: float, timeout: float) -> Snapshot:
        """The fleet, its lists renewed where they are older than `max_age` seconds.

        `what` is `models` or `resident`. Waits `timeout` seconds at most: endpoints that take
        longer are shown as they were, and what they answer later is not lost.
        """
        question = Question(what)
        asking = [spawn(watch.renew(question, max_age)) for watch in self._watches.values()]
        try:
            if asking:
                await asyncio.wait(asking, timeout=timeout)
        finally:
            for each in asking:
                each.cancel()
        return self.snapshot

    def _publish(self, snapshot: Snapshot) -> Mapping[str, Exception]:
        """Swap the snapshot. An error of whoever follows it is nobody's data, and no endpoint may
        pay for it: the one that was probed last used to be marked unhealthy."""
        self.snapshot = snapshot
        try:
            return self._changed(snapshot)
        except Exception as error:
            self._logger.error("fleet change not followed", exc_info=error)
            return _NO_FAULTS

    def _watch(self, asker: ProbeClient, spec: EndpointSpec, position: int) -> Watch:
        def publish(view: EndpointView) -> Exception | None:
            # One that is no longer watched may still hear something while it stops.
            if self._watches.get(spec.name) is not watch:
                return None
            return self._publish(self.snapshot.replaced(view)).get(spec.name)

        watch = Watch(
            spec,
            position,
            asker,
            self._clock,
            self._rng,
            lambda: self.list_interval,
            self._logger,
            self._slices,
            publish,
            self._lost,
        )
        return watch
