"""Serve the chat service: one message, one answer, whole or as a stream.

It sends each message to the fleet through Ollama's `/api/generate`, as a client would, and returns
a part of the answer. `status` has its status, `keys_and_usage` keys and usage.
"""

from collections.abc import AsyncIterator, Mapping

import msgspec
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from olla.access.caller import ANONYMOUS
from olla.access.limit import Limit
from olla.dialects.internal import InternalDialect
from olla.dialects.records import error_text
from olla.failures import Failed, Failure, Kind, Phase
from olla.proxy.http.error_response import error_response
from olla.proxy.http.message_fields import reason_phrase
from olla.proxy.http.raw_response import WRITTEN_CLOSE
from olla.proxy.internal.routes import InternalRequest, Surface
from olla.proxy.internal.subrequest import SubrequestResponse
from olla.surfaces.json_requests import MESSAGES_MAX, by_method, parsed_with_fields, tier_limits
from olla.surfaces.responses import json_response

__all__ = ["MEMBER", "TIERS", "ChatSurface"]

MEMBER = "member"
"""The tier of keys created here."""
TIERS: Mapping[str, tuple[Limit, ...]] = tier_limits("chat", {ANONYMOUS: 10, MEMBER: 30})
"""Limits of tiers that the configuration does not define."""

_GENERATE = "/olla/ollama/api/generate"
_NDJSON = "application/x-ndjson"
_ERROR_MAX = 2000
"""Characters of an endpoint's own error text."""
_UNFINISHED = "the endpoint's answer ended before it was complete; try again"
_RETRY_AFTER = 1.0
_BY_STATUS = {
    400: Kind.BAD_REQUEST,
    403: Kind.FORBIDDEN,
    404: Kind.MODEL_NOT_FOUND,
    413: Kind.BODY_TOO_LARGE,
    429: Kind.UPSTREAM_LIMITED,
}
"""The error code for an endpoint's own error that olla does not classify."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")

    message: str = Field(min_length=1)
    model: str | None = None


class _Said(msgspec.Struct):
    """The returned part of an answer, or of a piece of it, in this order."""

    model: str
    response: str
    done: bool


_NONE = msgspec.Raw(b"null")


class _Line(msgspec.Struct):
    """The used part of an answer, or of a piece of it. `error` is JSON, null without one."""

    model: str = ""
    response: str = ""
    done: bool = False
    error: msgspec.Raw = _NONE

    def said(self) -> _Said:
        return _Said(self.model, self.response, self.done)


_LINES = msgspec.json.Decoder(_Line)


class ChatSurface:
    """Serves `/chat` and `/chat/stream`."""

    def __init__(self, *, default_model: str) -> None:
        """`default_model` is used for requests without a model."""
        self._default_model = default_model

    def routes(self) -> dict[str, Surface]:
        """Return the handlers by path below the prefix."""
        return {
            "/chat": by_method("olla", {"POST": self._chat}),
            "/chat/stream": by_method("olla", {"POST": self._stream}),
        }

    async def _chat(self, request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        answer = await self._ask(asked, stream=False)
        try:
            status = await answer.status()
            body = await answer.body()
        except Failed as failed:
            return _failed(failed.failure, answer)
        finally:
            answer.close()
        if status >= 400:
            return _refused(status, body, answer)
        line = _read(body)
        if line is None:
            text = "the endpoint's answer is not one of Ollama's"
            return _failed(_broken(answer, text), answer)
        if line.error != _NONE:
            return _failed(_broken(answer, _text(line.error)), answer)
        if not line.done:
            return _failed(_broken(answer, _UNFINISHED), answer)
        caller = asked.quota.caller
        key = caller.key
        return json_response(
            {
                "user": (key.owner or key.name) if key is not None else caller.tier,
                "tier": caller.tier,
                "response": line.said(),
            },
            headers=dict(answer.router_headers()),
        )

    async def _stream(self, request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        answer = await self._ask(asked, stream=True)
        try:
            status = await answer.status()
            if status >= 400:
                return _refused(status, await answer.body(), answer)
            return await _relayed(request, asked, answer)
        except Failed as failed:
            return _failed(failed.failure, answer)
        except ConnectionError:
            return WRITTEN_CLOSE  # the client disconnected during a write
        finally:
            answer.close()

    async def _ask(self, asked: InternalRequest, *, stream: bool) -> SubrequestResponse:
        """Raises Failed: the body is invalid, or the fleet cannot be asked."""
        wanted, fields = await parsed_with_fields(asked, _Request, MESSAGES_MAX)
        model = wanted.model or self._default_model
        body = {"model": model, "prompt": fields["message"], "stream": stream}
        return asked.forward(_GENERATE, msgspec.json.encode(body))


async def _relayed(
    request: web.BaseRequest, asked: InternalRequest, answer: SubrequestResponse
) -> web.StreamResponse:
    """Relay the stream line by line.

    The head is sent with the first line. A response that is not a stream by its Content-Type is
    read completely first, because its end is then known before anything is sent.

    Raises:
        ConnectionError: the client has disconnected.
        Failed: the response is incomplete, and nothing has been sent.
    """
    response: web.StreamResponse | None = None
    error: str | None = None
    done = False
    held: list[bytes] = []
    async for raw in _lines(answer):
        line = _read(raw)
        if line is None:  # half a line: the error follows
            error = error or "the endpoint's answer broke off within a line"
        elif line.error != _NONE:
            error = _text(line.error) or "the endpoint ended its answer with an error"
        elif error is None:
            done = done or line.done
            held.append(msgspec.json.encode(line.said()) + b"\n")
            if answer.streams:
                response = response or await asked.stream(request, answer, _NDJSON)
                await response.write(b"".join(held))
                held.clear()
    if error is None and not done:
        error = _UNFINISHED
    if error is None and answer.record.failure is None:
        response = response or await asked.stream(request, answer, _NDJSON)
        await response.write(b"".join(held))
        return response
    failure = _broken(answer, error)
    if response is None:
        raise Failed(failure)
    await response.write(InternalDialect().in_band_error(failure, mid_record=False))
    return WRITTEN_CLOSE  # without the last chunk, so that clients report a broken stream


async def _lines(answer: SubrequestResponse) -> AsyncIterator[bytes]:
    """Yield the lines of a response that are not blank.

    Raises:
        Failed: a response that is not a stream broke off.
    """
    if answer.streams:
        async for line in answer.lines():
            yield line
        return
    for line in (await answer.body()).split(b"\n"):
        if line.strip():
            yield line


def _broken(answer: SubrequestResponse, text: str | None) -> Failure:
    """Return why a response ended early, in the endpoint's words if there are any."""
    failure, endpoint = answer.record.failure, answer.record.endpoint
    if failure is None:
        failure = Failure(Kind.STREAM_INCOMPLETE, text or "the answer is incomplete", endpoint)
        answer.record.failure = failure
    return Failure(failure.kind, text or failure.message, failure.endpoint, failure.retry_after)


def _failed(failure: Failure, answer: SubrequestResponse) -> web.Response:
    """Build the error response of a request that olla rejected or no endpoint answered. A failed
    connection is 503 here: Ollama is offline."""
    if failure.facts.phase is Phase.CONNECT:
        failure = Failure(Kind.NO_ENDPOINT, failure.message, failure.endpoint, _RETRY_AFTER)
    return error_response(failure, InternalDialect(), answer.router_headers())


def _refused(status: int, body: bytes, answer: SubrequestResponse) -> web.Response:
    """Build the response for an endpoint's own error, with its status and text."""
    known = answer.record.failure
    kind = known.kind if known is not None else _BY_STATUS.get(status, Kind.UPSTREAM_STATUS)
    line = _read(body)
    text = None if line is None else _text(line.error)
    failure = Failure(
        kind,
        text or f"the endpoint answered {status}",
        answer.record.endpoint,
        known.retry_after if known is not None else None,
    )
    response = error_response(failure, InternalDialect(), answer.router_headers())
    response.set_status(status, reason_phrase(status))
    return response


def _read(raw: bytes) -> _Line | None:
    """Parse an answer, or a piece of it; None if it is not Ollama's."""
    try:
        return _LINES.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _text(raw: msgspec.Raw) -> str | None:
    """Return the error text of an Ollama server, or of one that speaks its dialect."""
    return error_text(raw, _ERROR_MAX)
