"""Finds models that are stuck, and sees to it that requests go elsewhere meanwhile.

Looks at what is under way every few seconds. A suspicion is confirmed by a request of one token,
sent only for a model that is in memory and in the way it was loaded, so that nothing is loaded by
it. While a model is stuck it is asked again now and then, and any answer from it ends that.
"""

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Protocol

import msgspec
from structlog.typing import FilteringBoundLogger

from olla.clock import Clock
from olla.failures import Failed, Failure, Kind
from olla.fleet.instance import ModelInstance
from olla.fleet.snapshot import Snapshot
from olla.fleet.stalls import Patience, Progress, suspects
from olla.proxy.background.endpoint_request import number, post_to_endpoint
from olla.proxy.exchange.admission import Admission
from olla.proxy.upstream.pool import Pool
from olla.tasks import spawn

__all__ = ["Reprobe", "StallDetector"]


class Reprobe(Protocol):
    """Who can say what an endpoint has in memory now."""

    async def probed(self, endpoint: str) -> object:
        """Ask it at once, and wait for what it says."""
        ...


class StallDetector:
    """Watches what is under way. Start it, and stop it."""

    interval = 5.0
    """Seconds between two looks."""
    timeout = 15.0
    """Seconds that one token may take."""
    again_first = 5.0
    again_max = 60.0
    """Seconds until a stuck model is asked again, doubling from the first to the last."""

    def __init__(
        self,
        admission: Admission,
        pool: Pool,
        clock: Clock,
        *,
        moving: Callable[[], Iterable[Progress]],
        give_up: Callable[[ModelInstance, Failure], None],
        looking: Reprobe,
        snapshot: Callable[[], Snapshot],
        new_id: Callable[[], str],
        logger: FilteringBoundLogger,
    ) -> None:
        """`moving` are the requests under way; `give_up` sends those elsewhere that wait for a
        first byte from a stuck model."""
        self.patience = Patience()
        self._admission = admission
        self._dispatcher = admission.dispatcher
        self._pool = pool
        self._clock = clock
        self._moving = moving
        self._give_up = give_up
        self._looking = looking
        self._snapshot = snapshot
        self._new_id = new_id
        self._logger = logger
        self._task: asyncio.Task[None] | None = None
        self._suspicions: dict[ModelInstance, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin to look."""
        self._task = spawn(self._run())

    async def stop(self) -> None:
        """Look no more."""
        tasks = [*self._suspicions.values()]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.interval)
            try:
                self._look()
            except Exception as error:
                self._logger.error("looking for stuck models failed", exc_info=error)

    def _look(self) -> None:
        twins, now = self._dispatcher.twins, self._clock.now()
        for instance in suspects(self._moving(), twins, now, self.patience):
            if instance not in self._suspicions:
                self._suspicions[instance] = spawn(self._suspect(instance))

    async def _suspect(self, instance: ModelInstance) -> None:
        try:
            failure = await self.one_token(instance)
            if failure is None or not self._current(instance):
                instance.moved_at = self._clock.now()  # it works, or cannot be told
                return
            name = instance.twin.name
            self._logger.warning(
                "model stuck", endpoint=name, model=instance.model, reason=failure.message
            )
            message = f"endpoint '{name}' is stuck on this model: {failure.message}"
            self._mark(instance, stuck=True)
            self._give_up(instance, Failure(Kind.GIVEN_UP, message, name))
            await self._until_it_moves(instance)
            self._logger.info("model moves again", endpoint=name, model=instance.model)
        except Exception as error:
            self._logger.error("looking after a stuck model failed", exc_info=error)
        finally:
            self._mark(instance, stuck=False)
            del self._suspicions[instance]

    async def _until_it_moves(self, instance: ModelInstance) -> None:
        wait = self.again_first
        while instance in instance.twin.stuck and self._current(instance):
            await asyncio.sleep(wait)
            wait = min(wait * 2, self.again_max)
            if await self.one_token(instance) is None:
                return

    def _mark(self, instance: ModelInstance, *, stuck: bool) -> None:
        instance.twin.set_stuck(instance, stuck=stuck)
        self._admission.reconsider()

    def _current(self, instance: ModelInstance) -> bool:
        return self._dispatcher.twins.by_name.get(instance.twin.name) is instance.twin

    async def one_token(self, instance: ModelInstance) -> Failure | None:
        """Ask for one token; None when it came, or when the model is not in memory any more, so
        that asking would load it."""
        twin = instance.twin
        view = twin.view
        if twin.tells_residency:
            await self._looking.probed(twin.name)
            view = self._snapshot().by_name.get(twin.name, view)
            if not instance.resident or instance.model not in view.resident:
                return None
        path, body = _smallest_request(instance)
        try:
            async with asyncio.timeout(self.timeout):
                return await post_to_endpoint(self._pool, view.spec, path, body, self._new_id())
        except TimeoutError:
            return Failure(
                Kind.FIRST_BYTE_TIMEOUT, f"one token did not come within {self.timeout:g} s"
            )
        except Failed as failed:
            return failed.failure


def _smallest_request(instance: ModelInstance) -> tuple[str, bytes]:
    """Path and body of the request that shows whether a model works, and changes nothing: it
    wants the model just as it is loaded, for as long as it would stay anyway."""
    own = instance.twin.view.models.get(instance.model)
    body: dict[str, Any] = {"model": own.name if own is not None else instance.model}
    if not instance.twin.tells_residency:
        if instance.embedding:
            return "/v1/embeddings", msgspec.json.encode({**body, "input": "a"})
        return "/v1/completions", msgspec.json.encode({**body, "prompt": "a", "max_tokens": 1})
    options = {name: number(value) for name, value in instance.options or ()}
    if instance.options is None and instance.context is not None:
        options["num_ctx"] = instance.context
    body["keep_alive"] = number(round(instance.keep_alive)) if instance.keep_alive < inf else -1
    if instance.embedding:
        return "/api/embed", msgspec.json.encode({**body, "input": "a", "options": options})
    body.update(prompt="a", raw=True, stream=False, options={**options, "num_predict": 1})
    return "/api/generate", msgspec.json.encode(body)
