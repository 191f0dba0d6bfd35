"""All endpoints under watch, and the snapshot of the fleet that comes of it."""

import asyncio
import random
from collections.abc import Sequence

from structlog.typing import FilteringBoundLogger

from olla.clock import Clock
from olla.failures import Failure
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.probing.asking import Asker
from olla.probing.watch import Watch

__all__ = ["Prober"]


class Prober:
    """Watches endpoints; publishes `snapshot`, a new one whenever something was learnt.

    `list_interval` is how often an endpoint's models are read, in seconds; `rng` makes the jitter.
    """

    def __init__(
        self,
        specs: Sequence[EndpointSpec],
        clock: Clock,
        *,
        rng: random.Random,
        list_interval: float,
        logger: FilteringBoundLogger,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._list_interval = list_interval
        self._logger = logger
        self._specs = tuple(specs)
        self._asker: Asker | None = None
        self._watches: dict[str, Watch] = {}
        self.snapshot = Snapshot.of(
            EndpointView(spec=spec, position=at) for at, spec in enumerate(self._specs)
        )
        """The fleet as it is known now."""

    async def start(self) -> None:
        """Begin to ask all endpoints."""
        self._asker = Asker()
        for position, spec in enumerate(self._specs):
            self._watches[spec.name] = Watch(
                spec,
                position,
                self._asker,
                self._clock,
                self._rng,
                self._list_interval,
                self._learnt,
            )
        self.snapshot = Snapshot.of(watch.view for watch in self._watches.values())
        for watch in self._watches.values():
            watch.start()

    async def stop(self) -> None:
        """Ask no more."""
        await asyncio.gather(*(watch.stop() for watch in self._watches.values()))
        if self._asker is not None:
            await self._asker.close()

    async def first_pass(self) -> None:
        """Wait until every endpoint was asked once."""
        await asyncio.gather(*(watch.first_round() for watch in self._watches.values()))

    async def probed(self, endpoint: str) -> EndpointView:
        """Ask an endpoint at once, and wait for what it says."""
        watch = self._watches[endpoint]
        await watch.next_round()
        return watch.view

    def probe_now(self, endpoint: str) -> None:
        """Ask an endpoint at once: something on it has changed."""
        watch = self._watches.get(endpoint)
        if watch is not None:
            watch.ask_now()

    def observe(self, endpoint: str, failure: Failure | None, model: str | None) -> None:
        """An attempt against an endpoint, for a model, ended well (None) or with a failure."""
        watch = self._watches.get(endpoint)
        if watch is not None:
            watch.observe(failure, model)

    async def refresh(self, what: str, max_age: float, timeout: float) -> Snapshot:
        """The fleet, its lists renewed where they are older than `max_age` seconds.

        `what` is `models` or `resident`. Waits `timeout` seconds at most: endpoints that take
        longer are shown as they were.
        """
        asking = [
            asyncio.ensure_future(watch.renew(what, max_age)) for watch in self._watches.values()
        ]
        if asking:
            _, late = await asyncio.wait(asking, timeout=timeout)
            for each in late:
                each.cancel()
        return self.snapshot

    def _learnt(self, watch: Watch, before: str, after: str) -> None:
        self.snapshot = self.snapshot.replaced(watch.view)
        if before != after:
            note = self._logger.info if watch.view.routable else self._logger.warning
            note(
                "endpoint changed",
                endpoint=watch.spec.name,
                before=before,
                after=after,
                reason=watch.view.last_error,
            )
