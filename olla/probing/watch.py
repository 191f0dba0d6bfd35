"""One endpoint under watch: asks it on its own schedule, and keeps what is known of it.

A round asks for a sign of life, what is in memory and, when they are due, its models and its
version, side by side and each within the endpoint's time-out. What one endpoint does never delays
the asking of another.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping

from olla.clock import Clock
from olla.failures import Failure, Kind, Phase
from olla.fleet import breaker as breakers
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Event, HealthState, advance, next_interval
from olla.fleet.profiles import AUTO, Profile, profile_named
from olla.fleet.snapshot import EndpointView, Instance, Model, resident_by_name
from olla.probing.asking import Asker, Reply, Verdict
from olla.probing.detecting import detect
from olla.probing.reading import instances, models

__all__ = ["Watch"]

_VERSION_INTERVAL = 600.0
"""Seconds between two questions for the version of an endpoint that stays up."""

_EVENTS = {
    Verdict.TIMEOUT: Event.TIMEOUT,
    Verdict.UNREACHABLE: Event.UNREACHABLE,
    Verdict.BROKEN: Event.BROKEN,
    Verdict.UNAUTHORIZED: Event.UNAUTHORIZED,
    Verdict.RATE_LIMITED: Event.RATE_LIMITED,
    Verdict.LOADING: Event.LOADING,
}


class Watch:
    """What is known of one endpoint, and the task that keeps it known."""

    def __init__(
        self,
        spec: EndpointSpec,
        position: int,
        asker: Asker,
        clock: Clock,
        rng: random.Random,
        list_interval: float,
        changed: Callable[["Watch", str, str], None],
    ) -> None:
        """`changed` is called with the health before and after, whenever something was learnt."""
        self.spec = spec
        self._position = position
        self._asker = asker
        self._clock = clock
        self._rng = rng
        self._list_interval = list_interval
        self._changed = changed
        self._profile: Profile | None = None if spec.type == AUTO else profile_named(spec.type)
        self._state = HealthState()
        self._breaker = breakers.Breaker()
        self._models: Mapping[str, Model] = {}
        self._instances: list[Instance] = []
        self._version: str | None = None
        self._models_at: float | None = None
        self._resident_at: float | None = None
        self._version_at: float | None = None
        self._checked_at: float | None = None
        self._next_check_at: float | None = None
        self._error: str | None = None
        self._under_way: dict[str, asyncio.Task[Reply]] = {}
        self._stale: set[str] = set()
        """What is known to have changed since it was asked for."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._rounds = 0
        self._round_done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._half_open: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self.view = self._make_view()

    # --- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to ask."""
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """Ask no more."""
        if self._half_open is not None:
            self._half_open.cancel()
        owned = (self._task, self._looking, *self._under_way.values())
        tasks = [task for task in owned if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def first_round(self) -> None:
        """Wait until it was asked once."""
        await self._round_done.wait()

    async def next_round(self) -> None:
        """Ask at once, and wait for a round that began after this call."""
        wanted = self._rounds + 2 if self._in_round else self._rounds + 1
        self.ask_now()
        while self._rounds < wanted:
            self._round_done.clear()
            await self._round_done.wait()

    def ask_now(self) -> None:
        """Ask at once, lists included."""
        self._stale.add("models")
        self._wake.set()

    async def renew(self, what: str, max_age: float) -> None:
        """Ask for `models` or `resident` if what is known is older than `max_age` seconds."""
        at = self._models_at if what == "models" else self._resident_at
        if not self._state.health.routable or self._profile is None:
            return
        known = at is not None and self._clock.now() - at <= max_age
        if known and what not in self._stale and what not in self._under_way:
            return
        await (self._ask_models() if what == "models" else self._ask_resident())
        self._publish(self._state.health.value)

    # --- traffic ----------------------------------------------------------------------------

    def observe(self, failure: Failure | None, model: str | None) -> None:
        """An attempt for a model (canonical name) ended well, or with a failure."""
        now = self._clock.now()
        if failure is None:
            self._set_breaker(breakers.succeed(self._breaker, now))
            if model is not None and model not in self.view.resident:
                self._look_at_memory()
            return
        status = failure.endpoint_status
        if status == 429:
            self._learn(Event.RATE_LIMITED, failure.message, failure.retry_after)
            return
        if status in (401, 403):
            self.ask_now()  # it may have been the client's own doing; a probe will tell
            return
        if not failure.facts.against_endpoint:
            return
        self._set_breaker(breakers.fail(self._breaker, now))
        if failure.facts.phase is Phase.CONNECT and failure.kind is not Kind.CONNECT_TIMEOUT:
            self._learn(Event.UNREACHABLE, failure.message)
        self.ask_now()

    def _look_at_memory(self) -> None:
        """A model has answered that was not known to be in memory."""
        if self._profile is None or self._profile.resident_path is None:
            return
        self._stale.add("resident")
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self.renew("resident", 0.0))

    def _set_breaker(self, breaker: breakers.Breaker) -> None:
        if breaker == self._breaker:
            return
        moved = breaker.state is not self._breaker.state
        self._breaker = breaker
        if moved:
            self._publish(self._state.health.value)
            if breaker.state is breakers.BreakerState.OPEN:
                self._half_open = self._loop.call_later(
                    max(0.0, breaker.until - self._clock.now()), self._try_again
                )

    def _try_again(self) -> None:
        self._half_open = None
        self._set_breaker(breakers.tick(self._breaker, max(self._clock.now(), self._breaker.until)))

    # --- rounds -----------------------------------------------------------------------------

    @property
    def _in_round(self) -> bool:
        return bool(self._under_way)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._round()
            now = self._clock.now()
            wait = next_interval(self.spec.check_interval, self._state, now, self._rng.random())
            self._next_check_at = now + wait
            self._publish(self._state.health.value)
            self._rounds += 1
            self._round_done.set()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _round(self) -> None:
        if self.spec.type == AUTO and (self._profile is None or not self._state.health.routable):
            profile, reply = await detect(self._asker, self.spec)
            if profile is None:
                event = _EVENTS.get(reply.verdict, Event.BROKEN)
                self._learn(event, reply.error, reply.retry_after)
                return
            self._profile = profile
        asked: dict[str, Coroutine[None, None, Reply]] = {"alive": self._ask_alive()}
        now = self._clock.now()
        assert self._profile is not None
        if self._profile.resident_path is not None:
            asked["resident"] = self._ask_resident()
        back = not self._state.health.routable
        if back or self._due("models", self._models_at, self._list_interval, now):
            asked["models"] = self._ask_models()
        if back or self._due("version", self._version_at, _VERSION_INTERVAL, now):
            asked["version"] = self._ask_version()
        replies = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
        event, error, retry_after = _judge(replies)
        self._learn(event, error, retry_after)

    def _due(self, what: str, at: float | None, interval: float, now: float) -> bool:
        return at is None or what in self._stale or now - at >= interval

    def _learn(
        self, event: Event, error: str | None = None, retry_after: float | None = None
    ) -> None:
        before = self._state.health.value
        now = self._clock.now()
        self._state = advance(self._state, event, now, retry_after)
        self._checked_at = now
        self._error = error
        if not self._state.health.routable and event is not Event.TIMEOUT:
            self._instances = []
        self._publish(before)

    # --- questions; one of a kind at a time, whoever asks --------------------------------------

    async def _once(self, kind: str, ask: Callable[[], Coroutine[None, None, Reply]]) -> Reply:
        task = self._under_way.get(kind)
        if task is None:
            task = self._under_way[kind] = self._loop.create_task(ask())
            task.add_done_callback(lambda _: self._under_way.pop(kind, None))
        return await asyncio.shield(task)

    async def _ask_alive(self) -> Reply:
        assert self._profile is not None
        path = self.spec.alive_path or self._profile.alive_path
        return await self._once("alive", lambda: self._asker.get(self.spec, path))

    async def _ask_models(self) -> Reply:
        return await self._once("models", self._read_models)

    async def _ask_resident(self) -> Reply:
        return await self._once("resident", self._read_resident)

    async def _ask_version(self) -> Reply:
        return await self._once("version", self._read_version)

    async def _read_models(self) -> Reply:
        assert self._profile is not None
        self._stale.discard("models")
        path = self.spec.list_path or self._profile.list_path
        reply = await self._asker.get(self.spec, path)
        if reply.verdict is not Verdict.OK:
            return reply
        found = models(reply.json(), self._profile.list_format, self.spec.models)
        if found is None:
            return Reply(Verdict.BROKEN, error=f"GET {path} answered no list of models")
        self._models = found
        self._models_at = self._clock.now()
        return reply

    async def _read_resident(self) -> Reply:
        assert self._profile is not None
        self._stale.discard("resident")
        path = self._profile.resident_path or ""
        reply = await self._asker.get(self.spec, path)
        if reply.verdict is not Verdict.OK:
            return reply
        found = instances(reply.json())
        if found is None:
            return Reply(Verdict.BROKEN, error=f"GET {path} answered no list of models")
        self._instances = found
        self._resident_at = self._clock.now()
        return reply

    async def _read_version(self) -> Reply:
        assert self._profile is not None
        if self._profile.version_path is None:
            return Reply(Verdict.OK)
        reply = await self._asker.get(self.spec, self._profile.version_path)
        answer = reply.json() if reply.verdict is Verdict.OK else None
        version = answer.get("version") if answer is not None else None
        if isinstance(version, str):
            self._version = version[:64]
            self._version_at = self._clock.now()
        return reply

    # --- the view ---------------------------------------------------------------------------

    def _publish(self, before: str) -> None:
        self.view = self._make_view()
        self._changed(self, before, self._state.health.value)

    def _make_view(self) -> EndpointView:
        return EndpointView(
            spec=self.spec,
            position=self._position,
            profile=self._profile,
            health=self._state.health,
            breaker=self._breaker.state,
            models=self._models,
            resident=resident_by_name(self._instances, self._models),
            version=self._version,
            last_error=self._error,
            retry_at=self._state.retry_at,
            checked_at=self._checked_at,
            next_check_at=self._next_check_at,
            models_at=self._models_at,
        )


def _judge(replies: Mapping[str, Reply]) -> tuple[Event, str | None, float | None]:
    """What a round says of the endpoint. Its version is nice to know and judges nothing."""
    alive = replies["alive"]
    if alive.verdict not in (Verdict.OK, Verdict.ABSENT):
        return _EVENTS[alive.verdict], alive.error, alive.retry_after
    for name in ("models", "resident"):
        reply = replies.get(name)
        if reply is None or reply.verdict is Verdict.OK:
            continue
        if reply.verdict is Verdict.TIMEOUT:
            return Event.SLOW, reply.error, None
        event = _EVENTS.get(reply.verdict, Event.BROKEN)
        return event, reply.error, reply.retry_after
    return Event.OK, None, None
