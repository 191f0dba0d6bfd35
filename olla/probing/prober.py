"""Watch all endpoints, and publish a snapshot of the fleet after every change."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from structlog.typing import FilteringBoundLogger

from olla.clock import Clock
from olla.failures import Failure
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.probing.inventory import ProbeKind
from olla.probing.probe_client import ProbeClient
from olla.probing.slices import Slices
from olla.probing.watch import Watch, WatchServices
from olla.tasks import spawn

__all__ = ["Prober"]

_NO_FAULTS: Mapping[str, Exception] = {}


class Prober:
    """Watches endpoints and publishes `snapshot`, a new one after every change.

    `list_interval` is the interval in seconds between two reads of an endpoint's models. It also
    bounds the interval of the other probes. `rng` supplies the jitter. `changed` is called with
    every new snapshot, and returns the endpoints whose data it cannot use with the errors. `lost`
    is called with the name of an endpoint that went down, and the reason.
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
        self._client: ProbeClient | None = None
        self._slices = Slices()
        self._watches: dict[str, Watch] = {}
        self.snapshot = Snapshot.of(
            EndpointView(spec=spec, position=at) for at, spec in enumerate(self._specs)
        )
        """The current snapshot of the fleet."""

    async def start(self) -> None:
        """Start to probe all endpoints."""
        self._client = ProbeClient(self._clock)
        await self.set_specs(self._specs)

    async def stop(self) -> None:
        """Stop all probes and close the client."""
        await asyncio.gather(*(watch.stop() for watch in self._watches.values()))
        if self._client is not None:
            await self._client.close()

    async def set_specs(
        self,
        specs: Sequence[EndpointSpec],
        *,
        first_round_timeout: float = 0.0,
        commit: Callable[[], None] = lambda: None,
    ) -> None:
        """Replace the watched endpoints. Call it between `start` and `stop`, one call at a time.

        Unchanged endpoints keep their state. New and changed ones start without any, and are probed
        first, for `first_round_timeout` seconds at most. Then all endpoints change at once,
        together with the changes that `commit` makes. If `commit` raises, nothing changes.
        """
        assert self._client is not None
        added: dict[str, Watch] = {}
        for position, spec in enumerate(specs):
            watch = self._watches.get(spec.name)
            if watch is None or watch.spec != spec:
                added[spec.name] = self._watch(self._client, spec, position)
        for watch in added.values():
            watch.start()
        try:
            if added and first_round_timeout:
                rounds = [spawn(each.first_round()) for each in added.values()]
                await asyncio.wait(rounds, timeout=first_round_timeout)
                for each in rounds:
                    each.cancel()
            commit()
        except BaseException:
            await asyncio.gather(*(watch.stop() for watch in added.values()))
            raise
        removed, self._watches = self._watches, {}
        for position, spec in enumerate(specs):
            watch = added.get(spec.name) or removed.pop(spec.name)
            watch.move_to(position)
            self._watches[spec.name] = watch
        self._publish(Snapshot.of(watch.view for watch in self._watches.values()))
        await asyncio.gather(*(watch.stop() for watch in removed.values()))

    async def first_pass(self) -> None:
        """Wait until every endpoint was probed once."""
        await asyncio.gather(*(watch.first_round() for watch in self._watches.values()))

    async def probed(self, endpoint: str) -> EndpointView:
        """Probe an endpoint immediately, and wait for the result.

        Raises:
            KeyError: no such endpoint.
        """
        watch = self._watches[endpoint]
        await watch.next_round()
        return watch.view

    def probe_now(self, endpoint: str) -> None:
        """Probe an endpoint immediately, because something on it has changed."""
        watch = self._watches.get(endpoint)
        if watch is not None:
            watch.probe_now()

    def observe(self, endpoint: str, failure: Failure | None, model: str | None) -> None:
        """Record that an attempt against an endpoint succeeded (None) or failed.

        Do not report attempts whose client hung up: they say nothing about the endpoint.
        """
        watch = self._watches.get(endpoint)
        if watch is not None:
            watch.observe(failure, model)

    async def refresh(self, what: str, max_age: float, timeout: float) -> Snapshot:
        """Return the fleet, after reading lists older than `max_age` seconds again.

        `what` is `models` or `resident`. Waits `timeout` seconds at most. Slower endpoints are
        returned with their previous data, and their late answers are still recorded.
        """
        kind = ProbeKind(what)
        refreshes = [spawn(watch.refresh(kind, max_age)) for watch in self._watches.values()]
        try:
            if refreshes:
                await asyncio.wait(refreshes, timeout=timeout)
        finally:
            for each in refreshes:
                each.cancel()
        return self.snapshot

    def _publish(self, snapshot: Snapshot) -> Mapping[str, Exception]:
        """Replace the snapshot. An error in a follower must not count against an endpoint: the one
        probed last used to be marked unhealthy."""
        self.snapshot = snapshot
        try:
            return self._changed(snapshot)
        except Exception as error:
            self._logger.error("fleet update failed", exc_info=error)
            return _NO_FAULTS

    def _watch(self, client: ProbeClient, spec: EndpointSpec, position: int) -> Watch:
        def publish(view: EndpointView) -> Exception | None:
            # A watch that was replaced may still receive an answer while it stops.
            if self._watches.get(spec.name) is not watch:
                return None
            return self._publish(self.snapshot.replaced(view)).get(spec.name)

        services = WatchServices(
            client=client,
            clock=self._clock,
            rng=self._rng,
            slices=self._slices,
            logger=self._logger,
            list_interval=lambda: self.list_interval,
        )
        watch = Watch(spec, position, services, publish, self._lost)
        return watch
