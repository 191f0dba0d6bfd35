"""Load models with an empty request from the router itself.

Ollama aborts a load when the client that caused it disconnects, so an impatient client could keep
a model cold forever. Therefore the router sends the request, and clients wait for its outcome. The
dispatcher decides which model to load and when.
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
    """Runs the loads in progress, one task each."""

    def __init__(
        self,
        pool: Pool,
        on_end: Callable[[ModelLoad, Failure | None], None],
        *,
        timeout: float,
        new_id: Callable[[], str],
    ) -> None:
        """`on_end` is called at the end of each load, with its failure or None. A load may take
        `timeout` seconds or three times its expected time, whichever is longer; 0 sets no limit.
        `new_id` makes request ids."""
        self._pool = pool
        self._on_end = on_end
        self.timeout = timeout
        self._new_id = new_id
        self._tasks: dict[ModelLoad, asyncio.Task[None]] = {}

    def begin(self, action: BeginLoad) -> None:
        """Start to load a model."""
        loading = action.loading
        task = spawn(self._load(action), lambda error: self._crashed(loading, error))
        self._tasks[loading] = task
        task.add_done_callback(lambda _: self._tasks.pop(loading, None))

    def abandon(self, loading: ModelLoad) -> None:
        """Close the connection, so that the endpoint aborts the load."""
        task = self._tasks.get(loading)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Abort all loads."""
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
        self._on_end(loading, failure)

    def _crashed(self, loading: ModelLoad, error: Exception) -> None:
        """Report a bug in olla's code and fail the load, so that no request waits for it."""
        report(error)
        self._on_end(
            loading, Failure(Kind.INTERNAL, f"the router failed to load the model: {error!r}")
        )


def _empty_request(action: BeginLoad) -> tuple[str, bytes]:
    """Return path and body of the request that only loads the model."""
    loading = action.loading
    instance = loading.instance
    listed = instance.twin.view.models.get(instance.model)
    body: dict[str, Any] = {"model": listed.name if listed is not None else instance.model}
    if loading.options:
        body["options"] = {name: number(value) for name, value in loading.options}
    if action.features.embedding:
        return "/api/embed", msgspec.json.encode({**body, "input": []})
    return "/api/generate", msgspec.json.encode({**body, "stream": False})
