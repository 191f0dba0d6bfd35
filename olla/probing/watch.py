"""One endpoint under watch: asks it on its own schedule, and judges what it hears.

A round asks for a sign of life, what is in memory and, when they are due, its models and its
version, side by side and each within the endpoint's time-out. What one endpoint does never delays
the asking of another. What was answered is kept by `inventory`.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial
from math import inf

from structlog.typing import FilteringBoundLogger

from olla.clock import Clock
from olla.failures import Failure, Kind, Phase
from olla.fleet import breaker as breakers
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health, HealthEvent, HealthState, advance, next_interval
from olla.fleet.profiles import AUTO, PROFILES, profile_named
from olla.fleet.snapshot import EndpointView
from olla.probing.inventory import Inventory, Question
from olla.probing.list_parsing import MODELS_MAX
from olla.probing.probe_client import ProbeClient, Reply, Verdict
from olla.probing.slices import Slices
from olla.probing.type_detection import detect
from olla.tasks import spawn

__all__ = ["Watch"]

_VERSION_INTERVAL = 600.0
"""Seconds between two questions for the version of an endpoint that stays up."""
_WARNING_INTERVAL = 60.0
_ERROR_MAX = 200
"""Characters of an error of olla's own that are shown."""
_SPACING = 0.5
"""Seconds from one question to the next, at least, when traffic gives the occasion: there may be
hundreds of failing requests a second, and one probe tells as much."""

_EVENTS = {
    Verdict.TIMEOUT: HealthEvent.TIMEOUT,
    Verdict.UNREACHABLE: HealthEvent.UNREACHABLE,
    Verdict.BROKEN: HealthEvent.BROKEN,
    Verdict.UNAUTHORIZED: HealthEvent.UNAUTHORIZED,
    Verdict.RATE_LIMITED: HealthEvent.RATE_LIMITED,
    Verdict.LOADING: HealthEvent.LOADING,
    Verdict.ABSENT: HealthEvent.BROKEN,
}


class Watch:
    """What is known of one endpoint, and the task that keeps it known."""

    def __init__(
        self,
        spec: EndpointSpec,
        position: int,
        asker: ProbeClient,
        clock: Clock,
        rng: random.Random,
        list_interval: Callable[[], float],
        logger: FilteringBoundLogger,
        slices: Slices,
        publish: Callable[[EndpointView], Exception | None],
        lost: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """`publish` takes the new view whenever something was learnt, and returns the error where
        the fleet cannot take it in; `lost` is told the name of an endpoint that has died, and why
        it is thought so. Long lists are read in `slices`."""
        self.spec = spec
        self._position = position
        self._asker = asker
        self._clock = clock
        self._rng = rng
        self._list_interval = list_interval
        self._logger = logger
        self._publish_view = publish
        self._lost = lost
        self._inventory = Inventory(spec, asker, clock, slices, self._publish, self._could_not_read)
        known = None if spec.type == AUTO else profile_named(spec.type)
        if known is not None:
            self._inventory.profile = known
        self._detects = known is None
        self._state = HealthState()
        self._breaker = breakers.Breaker()
        self._error: str | None = None
        self._fault: Exception | None = None
        """Why the fleet cannot take in what is known."""
        self._cut = False
        """Whether it was said that its list of models is cut."""
        self._checked_at: float | None = None
        self._next_check_at = 0.0
        """When the schedule says so, in monotonic seconds."""
        self._wanted_at = inf
        """When somebody wants a round sooner."""
        self._started_at = -inf
        """When the last round began."""
        self._looked_at = -inf
        """When traffic last gave the occasion to ask what is in memory."""
        self._warn_at = -inf
        """When a refused key may be told again."""
        self._in_round = False
        self._rounds = 0
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._nudge = asyncio.Event()
        self._round_done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._half_open: asyncio.TimerHandle | None = None
        self.view = self._make_view()

    # --- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to ask."""
        self._task = spawn(self._run())

    async def stop(self) -> None:
        """Ask no more. Whoever waits for a round goes on with what is known."""
        self._stopped = True
        if self._half_open is not None:
            self._half_open.cancel()
        tasks = [task for task in (self._task, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        await self._inventory.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._round_done.set()

    def move_to(self, position: int) -> None:
        """Its place in the configuration is another one now."""
        self._position = position
        self.view = self._make_view()

    async def first_round(self) -> None:
        """Wait until it was asked once."""
        await self._reached(1)

    async def next_round(self) -> None:
        """Ask at once, and wait for a round that began after this call."""
        wanted = self._rounds + (2 if self._in_round else 1)
        self.ask_now()
        await self._reached(wanted)

    def ask_now(self) -> None:
        """Ask at once, lists included."""
        self._inventory.mark_stale(Question.MODELS)
        self._ask_at(self._clock.now())

    async def renew(self, question: Question, max_age: float) -> None:
        """Ask for its models or what is in memory, if what is known is older than `max_age`
        seconds and the endpoint is one that gets requests."""
        inventory = self._inventory
        if self._stopped or not self._state.health.routable or inventory.profile is None:
            return
        if question is Question.RESIDENT and inventory.profile.resident_path is None:
            return
        if inventory.asking(question) or inventory.due(question, max_age):
            reply = await inventory.ask(question)
            if reply.verdict is not Verdict.OK:
                self._ask_soon()

    # --- traffic ----------------------------------------------------------------------------

    def observe(self, failure: Failure | None, model: str | None) -> None:
        """An attempt for a model (canonical name) ended well, or with a failure."""
        if self._stopped:
            return
        if failure is None:
            self._went_well(model)
        elif failure.endpoint_status == 429:
            self._was_limited(failure)
        elif failure.endpoint_status in (401, 403):
            self._ask_soon()  # it may have been the client's own doing; a probe will tell
            now = self._clock.now()
            if not self.spec.forward_authorization and now >= self._warn_at:
                self._warn_at = now + _WARNING_INTERVAL
                self._logger.warning("key refused", endpoint=self.spec.name, reason=failure.message)
        elif failure.facts.against_endpoint:
            self._set_breaker(breakers.fail(self._breaker, self._clock.now(), self._rng.random()))
            gone = failure.facts.phase is Phase.CONNECT and failure.kind is not Kind.CONNECT_TIMEOUT
            if gone and self._state.health is not Health.OFFLINE:
                self._learn(HealthEvent.UNREACHABLE, failure.message)
                self._schedule()
            self._ask_soon()

    def _went_well(self, model: str | None) -> None:
        breaker = breakers.succeed(self._breaker)
        if breaker is not self._breaker:
            self._set_breaker(breaker)
        if self._state.timeouts or self._state.health is Health.BUSY:
            self._learn(HealthEvent.ANSWERED)
        if model is not None and model not in self.view.resident:
            self._look_at_memory()

    def _was_limited(self, failure: Failure) -> None:
        if self._inventory.profile is PROFILES["ollama"]:
            return  # passed on from the cloud, for one of its models: the node is well
        self._learn(HealthEvent.RATE_LIMITED, failure.message, failure.retry_after)
        self._schedule()

    def _look_at_memory(self) -> None:
        """A model has answered that was not known to be in memory."""
        profile = self._inventory.profile
        if profile is None or profile.resident_path is None:
            return
        self._inventory.mark_stale(Question.RESIDENT)
        if self._looking is None or self._looking.done():
            self._looking = spawn(self._look())

    async def _look(self) -> None:
        await asyncio.sleep(self._looked_at + _SPACING - self._clock.now())
        self._looked_at = self._clock.now()
        await self.renew(Question.RESIDENT, 0.0)

    def _set_breaker(self, breaker: breakers.Breaker) -> None:
        before, self._breaker = self._breaker, breaker
        if breaker.state is before.state and breaker.ramp == before.ramp:
            return
        self._publish()
        if breaker.state is before.state:
            return
        opened = breaker.state is breakers.BreakerState.OPEN
        note = self._logger.warning if opened else self._logger.info
        note(
            "breaker changed",
            endpoint=self.spec.name,
            before=before.state.value,
            after=breaker.state.value,
        )
        if breaker.state is breakers.BreakerState.OPEN:
            self._half_open = self._loop.call_later(
                max(0.0, breaker.until - self._clock.now()), self._try_again
            )

    def _try_again(self) -> None:
        self._half_open = None
        self._set_breaker(breakers.tick(self._breaker, max(self._clock.now(), self._breaker.until)))

    # --- schedule ---------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wanted_at = inf
            self._started_at = self._clock.now()
            self._in_round = True
            # A fault of ours must not end the watch: the endpoint's health would stand still for
            # ever, and nobody would be told.
            try:
                await self._round()
            except Exception as error:
                self._log_fault(error)
                message = f"olla could not ask it: {error!r}"[:_ERROR_MAX]
                self._guarded(partial(self._learn, HealthEvent.BROKEN, message))
            self._in_round = False
            self._checked_at = self._clock.now()
            self._rounds += 1
            self._guarded(self._schedule)
            done, self._round_done = self._round_done, asyncio.Event()
            done.set()
            await self._until_due()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do something that tells others what was learnt, whatever they make of it."""
        try:
            step()
        except Exception as error:
            self._log_fault(error)

    def _log_fault(self, error: Exception) -> None:
        self._logger.error("probe failed", endpoint=self.spec.name, exc_info=error)

    async def _until_due(self) -> None:
        while (left := min(self._next_check_at, self._wanted_at) - self._clock.now()) > 0:
            self._nudge.clear()
            try:
                async with asyncio.timeout(left):
                    await self._nudge.wait()
            except TimeoutError:
                pass

    def _schedule(self) -> None:
        """Say when the next round is."""
        now = self._clock.now()
        wait = next_interval(self.spec.check_interval, self._state, now, self._rng.random())
        if self._state.health.routable:
            wait = min(wait, self._list_interval())
        self._next_check_at = now + wait
        self._nudge.set()
        self._publish()

    def _ask_soon(self) -> None:
        """Ask at once, unless that was done a moment ago."""
        self._ask_at(max(self._clock.now(), self._started_at + _SPACING))

    def _ask_at(self, at: float) -> None:
        if at < self._wanted_at:
            self._wanted_at = at
            self._nudge.set()

    async def _reached(self, rounds: int) -> None:
        while self._rounds < rounds and not self._stopped:
            await self._round_done.wait()

    # --- rounds -----------------------------------------------------------------------------

    async def _round(self) -> None:
        inventory = self._inventory
        back = not self._state.health.routable
        if self._detects and back:
            profile, reply = await detect(self._asker, self.spec)
            if profile is None and reply.verdict is Verdict.UNASKED:
                return
            if profile is None:
                self._learn(
                    _EVENTS.get(reply.verdict, HealthEvent.BROKEN), reply.error, reply.retry_after
                )
                return
            inventory.profile = profile
        asked = [Question.ALIVE, Question.RESIDENT]
        if back or inventory.due(Question.MODELS, self._list_interval()):
            asked.append(Question.MODELS)
        if back or inventory.due(Question.VERSION, _VERSION_INTERVAL):
            asked.append(Question.VERSION)
        answers = await asyncio.gather(*(inventory.ask(each) for each in asked))
        if any(answer.verdict is Verdict.UNASKED for answer in answers):
            return  # it was not the endpoint that failed
        event, reply = _judge(dict(zip(asked, answers, strict=True)))
        if self._fault is not None and event in (HealthEvent.OK, HealthEvent.SLOW):
            message = f"olla could not take in what it tells: {self._fault!r}"
            self._learn(HealthEvent.BROKEN, message[:_ERROR_MAX])
        else:
            self._learn(event, reply.error, reply.retry_after)

    def _learn(
        self, event: HealthEvent, error: str | None = None, retry_after: float | None = None
    ) -> None:
        before = self._state.health
        self._state = advance(self._state, event, self._clock.now(), retry_after)
        after = self._state.health
        self._error = error
        if not after.routable and event is not HealthEvent.TIMEOUT:
            self._inventory.forget_memory()
        if after.routable and not before.routable and before is not Health.UNKNOWN:
            self._breaker = breakers.come_back(self._breaker)
        self._publish()
        if before.routable and after in (Health.UNHEALTHY, Health.OFFLINE):
            self._lost(self.spec.name, error or after.value)
        if after is not before:
            note = self._logger.info if after.routable else self._logger.warning
            note(
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
        if self._inventory.models_cut is not self._cut:
            self._cut = self._inventory.models_cut
            if self._cut:
                self._logger.warning(
                    "model list cut", endpoint=self.spec.name, models_max=MODELS_MAX
                )

    def _could_not_read(self, error: Exception) -> None:
        self._logger.error("answer not read", endpoint=self.spec.name, exc_info=error)

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


def _judge(replies: Mapping[Question, Reply]) -> tuple[HealthEvent, Reply]:
    """What a round says of the endpoint, and the answer that says so.

    Its version is nice to know and judges nothing; a path it does not have is a sign of life.
    """
    alive = replies[Question.ALIVE]
    if alive.verdict not in (Verdict.OK, Verdict.ABSENT):
        return _EVENTS[alive.verdict], alive
    lists = [replies[each] for each in (Question.MODELS, Question.RESIDENT) if each in replies]
    slow = None
    for reply in lists:
        if reply.verdict is Verdict.TIMEOUT:
            slow = slow or reply
        elif reply.verdict is not Verdict.OK:
            return _EVENTS[reply.verdict], reply
    return (HealthEvent.SLOW, slow) if slow is not None else (HealthEvent.OK, Reply(Verdict.OK))
