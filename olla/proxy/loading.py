"""Loads of olla's own: the empty request that makes an endpoint load a model.

A load belongs to whoever asked for it: Ollama gives it up when that client hangs up. So that an
impatient client cannot keep a model cold for ever, olla asks itself, and clients wait for the
outcome. When to load what is the dispatcher's business.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from olla.admission.tickets import BeginLoad
from olla.failures import Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.line import Loading
from olla.proxy.head import ResponseHead
from olla.proxy.headers import request_head, unchanging_head
from olla.proxy.upstream import Pool

__all__ = ["ModelLoads"]

_ANSWER_MAX = 65536
"""Bytes; the answer to an empty request is some hundred."""
_JSON = ((b"Content-Type", b"application/json"),)


class ModelLoads:
    """The loads under way, one task each."""

    def __init__(
        self,
        pool: Pool,
        ended: Callable[[Loading, Failure | None], None],
        *,
        timeout: float,
        new_id: Callable[[], str],
    ) -> None:
        """`ended` is told of each load's end, None for a good one; `timeout` is in seconds, 0 for
        none; `new_id` makes request ids."""
        self._pool = pool
        self._ended = ended
        self._timeout = timeout
        self._new_id = new_id
        self._tasks: dict[Loading, asyncio.Task[None]] = {}

    def begin(self, action: BeginLoad) -> None:
        """Have a model loaded."""
        loading = action.loading
        task = asyncio.get_running_loop().create_task(self._load(action))
        self._tasks[loading] = task
        task.add_done_callback(lambda _: self._tasks.pop(loading, None))

    def abandon(self, loading: Loading) -> None:
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
        view = loading.line.twin.view
        try:
            async with asyncio.timeout(self._timeout or None):
                failure = await self._ask(view.spec, *_empty_request(action))
        except Failed as failed:
            failure = failed.failure
        except TimeoutError:
            failure = Failure(
                Kind.FIRST_BYTE_TIMEOUT,
                f"endpoint '{view.name}' did not load the model within {self._timeout:g} s "
                "(proxy.response_header_timeout)",
                view.name,
            )
        self._ended(loading, failure)

    async def _ask(self, spec: EndpointSpec, path: str, body: bytes) -> Failure | None:
        unchanging = unchanging_head("POST", path, spec, _JSON, peer="127.0.0.1")
        head = request_head(unchanging, self._new_id(), len(body), chunked=False)
        connection = self._pool.take_idle(spec)
        while True:
            fresh = connection is None
            if connection is None:
                connection = await self._pool.connect(spec)
            answer = _Answer(spec.name)
            connection.begin("POST", answer)
            connection.write(head + body)
            connection.sent = True
            try:
                failure = await answer.done
            except asyncio.CancelledError:
                connection.abort()
                raise
            if fresh or failure is None or failure.kind is not Kind.RESET:
                return failure
            connection = None  # an idle connection that had been closed meanwhile


class _Answer:
    """Takes the answer to an empty request, see `upstream.Receiver`."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._head: ResponseHead | None = None
        self._body = b""
        self.done: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()

    def head(self, head: ResponseHead, more: bool) -> None:
        """It begins."""
        self._head = head

    def body(self, raw: bytes, payload: list[bytes]) -> None:
        """It goes on."""
        if len(self._body) < _ANSWER_MAX:
            self._body += b"".join(payload)

    def end(self, trailers: bytes) -> None:
        """It is complete."""
        assert self._head is not None
        status, text = self._head.status, _error_text(self._body)
        if status == 200 and text is None:
            self._settle(None)
            return
        message = f"endpoint '{self._endpoint}' did not load the model: {text or status}"
        self._settle(
            Failure(
                Kind.UPSTREAM_STATUS,
                message,
                self._endpoint,
                endpoint_status=status if status != 200 else 500,
            )
        )

    def broken(self, kind: Kind, message: str) -> None:
        """It will not become complete."""
        self._settle(Failure(kind, f"endpoint '{self._endpoint}' {message}", self._endpoint))

    def _settle(self, failure: Failure | None) -> None:
        if not self.done.done():
            self.done.set_result(failure)


def _empty_request(action: BeginLoad) -> tuple[str, bytes]:
    """Path and body of the request that loads and does nothing else."""
    loading = action.loading
    line = loading.line
    own = line.twin.view.models.get(line.model)
    body: dict[str, Any] = {"model": own.name if own is not None else line.model}
    if loading.options:
        body["options"] = {name: _number(value) for name, value in loading.options}
    if action.features.embedding:
        return "/api/embed", msgspec.json.encode({**body, "input": []})
    return "/api/generate", msgspec.json.encode({**body, "stream": False})


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _error_text(body: bytes) -> str | None:
    """What an answer says went wrong; None when it says nothing."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error)[:500] if error else None
