"""Loads of olla's own: the empty request that makes an endpoint load a model.

A load belongs to whoever asked for it: Ollama gives it up when that client hangs up. So that an
impatient client cannot keep a model cold for ever, olla asks itself, and clients wait for the
outcome. When to load what is the dispatcher's business.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from olla.admission.queue_types import BeginLoad
from olla.failures import Failed, Failure, Kind
from olla.fleet.instance import ModelLoad
from olla.proxy.background.endpoint_request import number, post_to_endpoint
from olla.proxy.exchange.attempt import LOAD_PATIENCE
from olla.proxy.upstream.pool import Pool
from olla.tasks import report, spawn

__all__ = ["ModelLoader"]


class ModelLoader:
    """The loads under way, one task each."""

    def __init__(
        self,
        pool: Pool,
        ended: Callable[[ModelLoad, Failure | None], None],
        *,
        timeout: float,
        new_id: Callable[[], str],
    ) -> None:
        """`ended` is told of each load's end, None for a good one; `timeout` is how many seconds a
        load may take at least, and three times what is expected; 0 for any number,
        none; `new_id` makes request ids."""
        self._pool = pool
        self._ended = ended
        self.timeout = timeout
        self._new_id = new_id
        self._tasks: dict[ModelLoad, asyncio.Task[None]] = {}

    def begin(self, action: BeginLoad) -> None:
        """Have a model loaded."""
        loading = action.loading
        task = spawn(self._load(action), lambda error: self._crashed(loading, error))
        self._tasks[loading] = task
        task.add_done_callback(lambda _: self._tasks.pop(loading, None))

    def abandon(self, loading: ModelLoad) -> None:
        """Hang up; the endpoint gives the load up."""
        task = self._tasks.get(loading)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Give up all of them."""
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, action: BeginLoad) -> None:
        loading = action.loading
        view = loading.instance.twin.view
        limit = self.timeout
        if limit:
            limit = max(limit, LOAD_PATIENCE * (loading.ready_at - loading.began))
        try:
            async with asyncio.timeout(limit or None):
                path, body = _empty_request(action)
                failure = await post_to_endpoint(self._pool, view.spec, path, body, self._new_id())
                if failure is not None and failure.kind is Kind.UPSTREAM_STATUS:
                    failure = msgspec.structs.replace(
                        failure, message=f"{failure.message}; the model was not loaded"
                    )
        except Failed as failed:
            failure = failed.failure
        except TimeoutError:
            failure = Failure(
                Kind.FIRST_BYTE_TIMEOUT,
                f"endpoint '{view.name}' did not load the model within {limit:g} s "
                "(proxy.response_header_timeout)",
                view.name,
            )
        self._ended(loading, failure)

    def _crashed(self, loading: ModelLoad, error: Exception) -> None:
        """Olla's own code has failed at it: whoever waits for the model is not left waiting."""
        report(error)
        self._ended(loading, Failure(Kind.INTERNAL, f"the router failed to load it: {error!r}"))


def _empty_request(action: BeginLoad) -> tuple[str, bytes]:
    """Path and body of the request that loads and does nothing else."""
    loading = action.loading
    instance = loading.instance
    own = instance.twin.view.models.get(instance.model)
    body: dict[str, Any] = {"model": own.name if own is not None else instance.model}
    if loading.options:
        body["options"] = {name: number(value) for name, value in loading.options}
    if action.features.embedding:
        return "/api/embed", msgspec.json.encode({**body, "input": []})
    return "/api/generate", msgspec.json.encode({**body, "stream": False})
