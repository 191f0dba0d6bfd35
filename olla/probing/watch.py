"""Watch one endpoint: probe it on its schedule, and derive its health.

A round probes in parallel, each within the endpoint's time-out: whether the endpoint is alive, its
loaded models and, when they are due, its list of models and its version. A slow endpoint never
delays the probes of another. `inventory` stores the answers.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial
from math import inf

import msgspec
from structlog.typing import FilteringBoundLogger

from olla.clock import Clock
from olla.failures import Failure, Kind, Phase
from olla.fleet import breaker as breakers
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health, HealthEvent, HealthState, advance, next_interval
from olla.fleet.profiles import AUTO, PROFILES, profile_named
from olla.fleet.snapshot import EndpointView
from olla.probing.inventory import Inventory, ProbeKind
from olla.probing.list_parsing import MODELS_MAX
from olla.probing.probe_client import ProbeClient, Reply, Verdict
from olla.probing.slices import Slices
from olla.probing.type_detection import detect
from olla.tasks import spawn

__all__ = ["Watch", "WatchServices"]

_VERSION_INTERVAL = 600.0
"""Seconds between two probes of the version of a healthy endpoint."""
_WARNING_INTERVAL = 60.0
_ERROR_MAX = 200
"""Shown characters of an internal error."""
_SPACING = 0.5
"""Minimum seconds between two probes that traffic triggers. Hundreds of requests may fail in a
second, and one probe gives the same information."""

_EVENTS = {
    Verdict.TIMEOUT: HealthEvent.TIMEOUT,
    Verdict.UNREACHABLE: HealthEvent.UNREACHABLE,
    Verdict.BROKEN: HealthEvent.BROKEN,
    Verdict.UNAUTHORIZED: HealthEvent.UNAUTHORIZED,
    Verdict.RATE_LIMITED: HealthEvent.RATE_LIMITED,
    Verdict.LOADING: HealthEvent.LOADING,
    Verdict.ABSENT: HealthEvent.BROKEN,
}


class WatchServices(msgspec.Struct, frozen=True, kw_only=True):
    """Services that all watches of a prober share.

    Long lists are parsed in `slices`. `list_interval` returns the seconds between two reads of an
    endpoint's models; a reload may change it.
    """

    client: ProbeClient
    clock: Clock
    rng: random.Random
    slices: Slices
    logger: FilteringBoundLogger
    list_interval: Callable[[], float]


class Watch:
    """The state of one endpoint, and the task that keeps it up to date."""

    def __init__(
        self,
        spec: EndpointSpec,
        position: int,
        services: WatchServices,
        publish: Callable[[EndpointView], Exception | None],
        lost: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """`publish` is called with every new view, and returns the error if the fleet cannot
        process it. `lost` is called with the name of an endpoint that went down, and the reason.
        """
        self.spec = spec
        self._position = position
        self._client = services.client
        self._clock = services.clock
        self._rng = services.rng
        self._list_interval = services.list_interval
        self._logger = services.logger
        self._publish_view = publish
        self._lost = lost
        self._inventory = Inventory(
            spec,
            services.client,
            services.clock,
            services.slices,
            self._publish,
            self._log_parse_error,
        )
        known = None if spec.type == AUTO else profile_named(spec.type)
        if known is not None:
            self._inventory.profile = known
        self._detects = known is None
        self._state = HealthState()
        self._breaker = breakers.Breaker()
        self._error: str | None = None
        self._fault: Exception | None = None
        """Error of the fleet in processing the view."""
        self._cut_logged = False
        """Whether a cut list of models was logged."""
        self._checked_at: float | None = None
        self._next_check_at = 0.0
        """Scheduled time of the next round, in monotonic seconds."""
        self._requested_at = inf
        """Time of an earlier round that a caller requested."""
        self._started_at = -inf
        """Start of the last round."""
        self._resident_probed_at = -inf
        """Last time when traffic triggered a probe of the loaded models."""
        self._next_warning_at = -inf
        """Earliest time of the next warning about a rejected key."""
        self._in_round = False
        self._rounds = 0
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._rescheduled = asyncio.Event()
        self._round_done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._resident_task: asyncio.Task[None] | None = None
        self._half_open: asyncio.TimerHandle | None = None
        self.view = self._make_view()

    # --- lifecycle --------------------------------------------------------------------------

    def start(self) -> None:
        """Start to probe."""
        self._task = spawn(self._run())

    async def stop(self) -> None:
        """Stop probing. Callers that wait for a round return with the current state."""
        self._stopped = True
        if self._half_open is not None:
            self._half_open.cancel()
        tasks = [task for task in (self._task, self._resident_task) if task is not None]
        for task in tasks:
            task.cancel()
        await self._inventory.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._round_done.set()

    def move_to(self, position: int) -> None:
        """Change the position in the configuration."""
        self._position = position
        self.view = self._make_view()

    async def first_round(self) -> None:
        """Wait until the endpoint was probed once."""
        await self._wait_for_rounds(1)

    async def next_round(self) -> None:
        """Probe immediately, and wait for a round that began after this call."""
        wanted = self._rounds + (2 if self._in_round else 1)
        self.probe_now()
        await self._wait_for_rounds(wanted)

    def probe_now(self) -> None:
        """Probe immediately, lists included."""
        self._inventory.mark_stale(ProbeKind.MODELS)
        self._probe_at(self._clock.now())

    async def refresh(self, kind: ProbeKind, max_age: float) -> None:
        """Read the models or the loaded models again, if they are older than `max_age` seconds and
        the endpoint is routable."""
        inventory = self._inventory
        if self._stopped or not self._state.health.routable or inventory.profile is None:
            return
        if kind is ProbeKind.RESIDENT and inventory.profile.resident_path is None:
            return
        if inventory.is_probing(kind) or inventory.due(kind, max_age):
            reply = await inventory.probe(kind)
            if reply.verdict is not Verdict.OK:
                self._probe_soon()

    # --- traffic ----------------------------------------------------------------------------

    def observe(self, failure: Failure | None, model: str | None) -> None:
        """Record that an attempt for a model (canonical name) succeeded or failed."""
        if self._stopped:
            return
        if failure is None:
            self._record_success(model)
        elif failure.endpoint_status == 429:
            self._record_rate_limit(failure)
        elif failure.endpoint_status in (401, 403):
            self._probe_soon()  # the client's own key may be the reason; a probe decides
            now = self._clock.now()
            if not self.spec.forward_authorization and now >= self._next_warning_at:
                self._next_warning_at = now + _WARNING_INTERVAL
                self._logger.warning(
                    "key rejected", endpoint=self.spec.name, reason=failure.message
                )
        elif failure.facts.against_endpoint:
            self._set_breaker(breakers.fail(self._breaker, self._clock.now(), self._rng.random()))
            gone = failure.facts.phase is Phase.CONNECT and failure.kind is not Kind.CONNECT_TIMEOUT
            if gone and self._state.health is not Health.OFFLINE:
                self._update_health(HealthEvent.UNREACHABLE, failure.message)
                self._schedule()
            self._probe_soon()

    def _record_success(self, model: str | None) -> None:
        breaker = breakers.succeed(self._breaker)
        if breaker is not self._breaker:
            self._set_breaker(breaker)
        if self._state.timeouts or self._state.health is Health.BUSY:
            self._update_health(HealthEvent.ANSWERED)
        if model is not None and model not in self.view.resident:
            self._probe_resident_soon()

    def _record_rate_limit(self, failure: Failure) -> None:
        if self._inventory.profile is PROFILES["ollama"]:
            return  # forwarded from the cloud for one model: the node is healthy
        self._update_health(HealthEvent.RATE_LIMITED, failure.message, failure.retry_after)
        self._schedule()

    def _probe_resident_soon(self) -> None:
        """Probe the loaded models, after a model answered that was not known to be loaded."""
        profile = self._inventory.profile
        if profile is None or profile.resident_path is None:
            return
        self._inventory.mark_stale(ProbeKind.RESIDENT)
        if self._resident_task is None or self._resident_task.done():
            self._resident_task = spawn(self._probe_resident())

    async def _probe_resident(self) -> None:
        await asyncio.sleep(self._resident_probed_at + _SPACING - self._clock.now())
        self._resident_probed_at = self._clock.now()
        await self.refresh(ProbeKind.RESIDENT, 0.0)

    def _set_breaker(self, breaker: breakers.Breaker) -> None:
        before, self._breaker = self._breaker, breaker
        if breaker.state is before.state and breaker.ramp == before.ramp:
            return
        self._publish()
        if breaker.state is before.state:
            return
        opened = breaker.state is breakers.BreakerState.OPEN
        log = self._logger.warning if opened else self._logger.info
        log(
            "breaker changed",
            endpoint=self.spec.name,
            before=before.state.value,
            after=breaker.state.value,
        )
        if breaker.state is breakers.BreakerState.OPEN:
            self._half_open = self._loop.call_later(
                max(0.0, breaker.until - self._clock.now()), self._end_breaker_pause
            )

    def _end_breaker_pause(self) -> None:
        self._half_open = None
        self._set_breaker(breakers.tick(self._breaker, max(self._clock.now(), self._breaker.until)))

    # --- schedule ---------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._requested_at = inf
            self._started_at = self._clock.now()
            self._in_round = True
            # An internal error must not end the watch: the endpoint's health would silently stay
            # the same forever.
            try:
                await self._round()
            except Exception as error:
                self._log_error(error)
                message = f"internal error while probing: {error!r}"[:_ERROR_MAX]
                self._guarded(partial(self._update_health, HealthEvent.BROKEN, message))
            self._in_round = False
            self._checked_at = self._clock.now()
            self._rounds += 1
            self._guarded(self._schedule)
            done, self._round_done = self._round_done, asyncio.Event()
            done.set()
            await self._wait_until_due()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run a step that calls back into the fleet, and log its errors."""
        try:
            step()
        except Exception as error:
            self._log_error(error)

    def _log_error(self, error: Exception) -> None:
        self._logger.error("probe failed", endpoint=self.spec.name, exc_info=error)

    async def _wait_until_due(self) -> None:
        while (left := min(self._next_check_at, self._requested_at) - self._clock.now()) > 0:
            self._rescheduled.clear()
            try:
                async with asyncio.timeout(left):
                    await self._rescheduled.wait()
            except TimeoutError:
                pass

    def _schedule(self) -> None:
        """Set the time of the next round."""
        now = self._clock.now()
        wait = next_interval(self.spec.check_interval, self._state, now, self._rng.random())
        if self._state.health.routable:
            wait = min(wait, self._list_interval())
        self._next_check_at = now + wait
        self._rescheduled.set()
        self._publish()

    def _probe_soon(self) -> None:
        """Probe immediately, unless the last round began less than `_SPACING` ago."""
        self._probe_at(max(self._clock.now(), self._started_at + _SPACING))

    def _probe_at(self, at: float) -> None:
        if at < self._requested_at:
            self._requested_at = at
            self._rescheduled.set()

    async def _wait_for_rounds(self, rounds: int) -> None:
        while self._rounds < rounds and not self._stopped:
            await self._round_done.wait()

    # --- rounds -----------------------------------------------------------------------------

    async def _round(self) -> None:
        inventory = self._inventory
        was_down = not self._state.health.routable
        if self._detects and was_down:
            profile, reply = await detect(self._client, self.spec)
            if profile is None and reply.verdict is Verdict.NOT_SENT:
                return
            if profile is None:
                self._update_health(
                    _EVENTS.get(reply.verdict, HealthEvent.BROKEN), reply.error, reply.retry_after
                )
                return
            inventory.profile = profile
        kinds = [ProbeKind.ALIVE, ProbeKind.RESIDENT]
        if was_down or inventory.due(ProbeKind.MODELS, self._list_interval()):
            kinds.append(ProbeKind.MODELS)
        if was_down or inventory.due(ProbeKind.VERSION, _VERSION_INTERVAL):
            kinds.append(ProbeKind.VERSION)
        replies = await asyncio.gather(*(inventory.probe(each) for each in kinds))
        if any(reply.verdict is Verdict.NOT_SENT for reply in replies):
            return  # olla failed, not the endpoint
        event, reply = _judge(dict(zip(kinds, replies, strict=True)))
        if self._fault is not None and event in (HealthEvent.OK, HealthEvent.SLOW):
            message = f"internal error while processing its data: {self._fault!r}"
            self._update_health(HealthEvent.BROKEN, message[:_ERROR_MAX])
        else:
            self._update_health(event, reply.error, reply.retry_after)

    def _update_health(
        self, event: HealthEvent, error: str | None = None, retry_after: float | None = None
    ) -> None:
        before = self._state.health
        self._state = advance(self._state, event, self._clock.now(), retry_after)
        after = self._state.health
        self._error = error
        if not after.routable and event is not HealthEvent.TIMEOUT:
            self._inventory.forget_resident()
        if after.routable and not before.routable and before is not Health.UNKNOWN:
            self._breaker = breakers.come_back(self._breaker)
        self._publish()
        if before.routable and after in (Health.UNHEALTHY, Health.OFFLINE):
            self._lost(self.spec.name, error or after.value)
        if after is not before:
            log = self._logger.info if after.routable else self._logger.warning
            log(
                "endpoint changed",
                endpoint=self.spec.name,
                address=self.spec.url,
                before=before.value,
                after=after.value,
                reason=error,
            )

    # --- the view ---------------------------------------------------------------------------

    def _publish(self) -> None:
        self.view = self._make_view()
        before, self._fault = self._fault, self._publish_view(self.view)
        if self._fault is not None and repr(before) != repr(self._fault):
            self._logger.error(
                "endpoint data rejected", endpoint=self.spec.name, exc_info=self._fault
            )
        if self._inventory.models_cut is not self._cut_logged:
            self._cut_logged = self._inventory.models_cut
            if self._cut_logged:
                self._logger.warning(
                    "model list cut", endpoint=self.spec.name, models_max=MODELS_MAX
                )

    def _log_parse_error(self, error: Exception) -> None:
        self._logger.error("response parsing failed", endpoint=self.spec.name, exc_info=error)

    def _make_view(self) -> EndpointView:
        inventory = self._inventory
        return EndpointView(
            spec=self.spec,
            position=self._position,
            profile=inventory.profile,
            health=self._state.health,
            breaker=self._breaker.state,
            ramp=self._breaker.ramp,
            models=inventory.models,
            resident=inventory.resident,
            version=inventory.version,
            last_error=self._error,
            retry_at=self._state.retry_at,
            checked_at=self._checked_at,
            next_check_at=self._next_check_at if self._rounds else None,
            models_at=inventory.models_at,
            resident_at=inventory.resident_at,
            resident_wall=inventory.resident_wall,
            models_cut=inventory.models_cut,
        )


def _judge(replies: Mapping[ProbeKind, Reply]) -> tuple[HealthEvent, Reply]:
    """Return the event that a round amounts to, and the reply that decided it.

    The version has no influence. A missing health path counts as alive.
    """
    alive = replies[ProbeKind.ALIVE]
    if alive.verdict not in (Verdict.OK, Verdict.ABSENT):
        return _EVENTS[alive.verdict], alive
    lists = [replies[each] for each in (ProbeKind.MODELS, ProbeKind.RESIDENT) if each in replies]
    slow = None
    for reply in lists:
        if reply.verdict is Verdict.TIMEOUT:
            slow = slow or reply
        elif reply.verdict is not Verdict.OK:
            return _EVENTS[reply.verdict], reply
    return (HealthEvent.SLOW, slow) if slow is not None else (HealthEvent.OK, Reply(Verdict.OK))
