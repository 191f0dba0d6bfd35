"""Detect stuck model instances and reroute their requests.

Checks the in-flight requests every few seconds. A request for one token confirms a suspicion. It is
sent only if the model is resident, and with its load options, so that it never causes a load. A
stuck instance is probed again with growing pauses, and any response from it clears the state.
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
    """Probes which models an endpoint has in memory."""

    async def probed(self, endpoint: str) -> object:
        """Probe the endpoint now and wait for the result."""
        ...


class StallDetector:
    """Checks in-flight requests between `start` and `stop`."""

    interval = 5.0
    """Seconds between two checks."""
    timeout = 15.0
    """Seconds to wait for the one token."""
    retry_first = 5.0
    retry_max = 60.0
    """Seconds between probes of a stuck instance: doubled from the first up to the maximum."""

    def __init__(
        self,
        admission: Admission,
        pool: Pool,
        clock: Clock,
        *,
        in_flight: Callable[[], Iterable[Progress]],
        reroute: Callable[[ModelInstance, Failure], None],
        prober: Reprobe,
        snapshot: Callable[[], Snapshot],
        new_id: Callable[[], str],
        logger: FilteringBoundLogger,
    ) -> None:
        """`in_flight` returns the progress of in-flight requests; `reroute` fails over those that
        wait for a first byte from a stuck instance; `prober` refreshes what is resident."""
        self.patience = Patience()
        self._admission = admission
        self._dispatcher = admission.dispatcher
        self._pool = pool
        self._clock = clock
        self._in_flight = in_flight
        self._reroute = reroute
        self._prober = prober
        self._snapshot = snapshot
        self._new_id = new_id
        self._logger = logger
        self._task: asyncio.Task[None] | None = None
        self._suspicions: dict[ModelInstance, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Start the periodic check."""
        self._task = spawn(self._run())

    async def stop(self) -> None:
        """Stop the check and all probes."""
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
                self._check()
            except Exception as error:
                self._logger.error("stall check failed", exc_info=error)

    def _check(self) -> None:
        twins, now = self._dispatcher.twins, self._clock.now()
        for instance in suspects(self._in_flight(), twins, now, self.patience):
            if instance not in self._suspicions:
                self._suspicions[instance] = spawn(self._confirm(instance))

    async def _confirm(self, instance: ModelInstance) -> None:
        try:
            failure = await self.one_token(instance)
            if failure is None or not self._current(instance):
                instance.moved_at = self._clock.now()  # it works, or its state is unknown
                return
            name = instance.twin.name
            self._logger.warning(
                "model stuck", endpoint=name, model=instance.model, reason=failure.message
            )
            message = f"endpoint '{name}' is stuck on this model: {failure.message}"
            self._mark(instance, stuck=True)
            self._reroute(instance, Failure(Kind.GIVEN_UP, message, name))
            await self._wait_until_it_responds(instance)
            self._logger.info("model responds again", endpoint=name, model=instance.model)
        except Exception as error:
            self._logger.error("stall confirmation failed", exc_info=error)
        finally:
            self._mark(instance, stuck=False)
            del self._suspicions[instance]

    async def _wait_until_it_responds(self, instance: ModelInstance) -> None:
        wait = self.retry_first
        while instance in instance.twin.stuck and self._current(instance):
            await asyncio.sleep(wait)
            wait = min(wait * 2, self.retry_max)
            if await self.one_token(instance) is None:
                return

    def _mark(self, instance: ModelInstance, *, stuck: bool) -> None:
        instance.twin.set_stuck(instance, stuck=stuck)
        self._admission.reconsider()

    def _current(self, instance: ModelInstance) -> bool:
        return self._dispatcher.twins.by_name.get(instance.twin.name) is instance.twin

    async def one_token(self, instance: ModelInstance) -> Failure | None:
        """Request one token and return the failure; None if it came.

        Also None if the model is no longer in memory, where the request would load it.
        """
        twin = instance.twin
        view = twin.view
        if twin.tells_residency:
            await self._prober.probed(twin.name)
            view = self._snapshot().by_name.get(twin.name, view)
            if not instance.resident or instance.model not in view.resident:
                return None
        path, body = _smallest_request(instance)
        try:
            async with asyncio.timeout(self.timeout):
                return await post_to_endpoint(self._pool, view.spec, path, body, self._new_id())
        except TimeoutError:
            return Failure(Kind.FIRST_BYTE_TIMEOUT, f"no token within {self.timeout:g} s")
        except Failed as failed:
            return failed.failure


def _smallest_request(instance: ModelInstance) -> tuple[str, bytes]:
    """Return path and body of a request that tests a model instance and changes nothing.

    It asks for the load options and the keep-alive that the instance already has.
    """
    listed = instance.twin.view.models.get(instance.model)
    body: dict[str, Any] = {"model": listed.name if listed is not None else instance.model}
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
