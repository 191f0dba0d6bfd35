"""Serve the management API: models with their descriptions, and chat and generate in one form.

It sends requests to the fleet through OpenAI's paths, so that queue, retries, limits and usage are
those of every request. `keys` manages keys.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from olla.access.visibility import Visibility
from olla.dialects.dialect import Right
from olla.dialects.records import error_text
from olla.dialects.registry import DIALECTS
from olla.dialects.top_level import TopLevel
from olla.failures import Failed, Failure, Kind
from olla.fleet.model_names import canonical
from olla.fleet.snapshot import EndpointView
from olla.proxy.auth.authenticate import SurfaceQuota
from olla.proxy.exchange.context import Fleet
from olla.proxy.http.error_response import error_response
from olla.proxy.http.raw_response import written
from olla.proxy.internal.routes import InternalRequest, InternalRoute
from olla.proxy.internal.subrequest import SubrequestResponse
from olla.routing.decision import refusal
from olla.routing.features import Features
from olla.settings.surfaces import ManagedModel, Management
from olla.surfaces.json_requests import MESSAGES_MAX, by_method, parsed_with_fields, tier_limits
from olla.surfaces.key_book import KeyBook
from olla.surfaces.management.keys import KeyRoutes
from olla.surfaces.management.wire import ChatRequest, GenerateRequest, Sampling
from olla.surfaces.models.list_cache import ListCache, Shape
from olla.surfaces.models.merge import Details, Merged
from olla.surfaces.responses import json_response, list_response

__all__ = ["DEFAULTS", "OWN", "ManagementSurface"]

DEFAULTS: Mapping[str, Any] = {"temperature": 0.7, "max_tokens": 1024}
"""Defaults for requests without parameters from the client or the configuration."""
OWN = SurfaceQuota(
    "management", tier_limits("management", {"standard": 60, "premium": 300}), unix_reset=True
)
_ASKED = "/olla/openai/v1"
_OPENAI = DIALECTS["openai"]
_LIST_AGE_MAX = 1.0
_LIST_TIMEOUT = 1.0
"""Seconds; see `ListSurface`."""
_SHOWN_MAX = 300
_ERROR_MAX = 2000
"""Characters of an endpoint's own error text."""
_OBJECTS_MAX = 400_000
"""Braces in a response: they bound the objects that parsing it creates."""
_CHOICES_MAX = 128
"""Choices of a completion, as many as OpenAI's API creates."""
_INT_MAX = 2**53 - 1
_RESERVED = frozenset({"model", "messages", "prompt", "stream"})
"""Parameters that the configuration cannot set."""


class ManagementSurface:
    """Serves `/models`, `/chat`, `/generate` and `/api-keys` below the configured prefix."""

    def __init__(
        self, settings: Management, fleet: Fleet, book: KeyBook, catalogue: ListCache
    ) -> None:
        self._prefix = settings.prefix
        self._catalogue = catalogue
        self._shape = Shape(self._shown)
        self._said = {canonical(name): said for name, said in settings.models.items()}
        self._fleet = fleet
        self._keys = KeyRoutes(book)

    def paths(self) -> dict[str, InternalRoute]:
        """Return the routes by path."""
        prefix = self._prefix

        def listed(**answers: Any) -> InternalRoute:
            return InternalRoute(
                by_method("openai", answers),
                right=Right.LIST,
                category="management",
                surface_quota=OWN,
                dialect="openai",
                operation="list",
                strict=True,
            )

        def asking(operation: str, **answers: Any) -> InternalRoute:
            return InternalRoute(
                by_method("openai", answers),
                right=Right.GENERATE,
                category="generation",
                forwards=True,
                surface_quota=OWN,
                dialect="openai",
                operation=operation,
                strict=True,
                recorded=True,
            )

        def keys(**answers: Any) -> InternalRoute:
            return InternalRoute(
                by_method("openai", answers),
                right=Right.ADMIN,
                category="management",
                surface_quota=OWN,
                dialect="openai",
                operation="keys",
                strict=True,
            )

        return {
            f"{prefix}/models": listed(GET=self._models),
            f"{prefix}/chat": asking("chat", POST=self._chat),
            f"{prefix}/generate": asking("generate", POST=self._generate),
            f"{prefix}/api-keys": keys(GET=self._keys.list, POST=self._keys.create),
            f"{prefix}/api-keys/*": keys(DELETE=self._keys.revoke),
        }

    # --- models -----------------------------------------------------------------------------

    async def _models(self, request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        snapshot = await self._fleet.refresh("models", _LIST_AGE_MAX, _LIST_TIMEOUT)
        visible = Visibility.of(asked.quota.caller)
        views = [view for view in visible.views(snapshot.endpoints) if _routable(view)]
        if not views:  # an empty list would mean that there are no models
            features = Features(
                models=(), dialect="openai", profiles=None, allowed=visible.endpoints
            )
            raise Failed(refusal(features, snapshot, "", asked.record.started).failure)
        rows = await self._catalogue.rows(views, self._shape, visible)
        return list_response(b'{"models":[', [row[1] for row in rows], b"]}")

    def _shown(self, one: Merged, _: Any) -> dict[str, Any]:
        said = self._said.get(one.name) or ManagedModel()
        return {
            "id": one.model.name,
            "name": said.name or one.model.name,
            "description": said.description or _described(one),
            "is_active": said.is_active,
            "parameters": said.parameters or DEFAULTS,
        }

    # --- requests to the fleet --------------------------------------------------------------

    async def _chat(self, request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        return await self._ask(request, asked, ChatRequest, "/chat/completions")

    async def _generate(
        self, request: web.BaseRequest, asked: InternalRequest
    ) -> web.StreamResponse:
        return await self._ask(request, asked, GenerateRequest, "/completions")

    async def _ask(
        self, request: web.BaseRequest, asked: InternalRequest, shape: type[Sampling], path: str
    ) -> web.StreamResponse:
        wanted, fields = await parsed_with_fields(asked, shape, MESSAGES_MAX)
        answer = asked.forward(_ASKED + path, self._body(wanted, fields))
        del fields  # refers to the client's body; the forwarded body is a copy
        try:
            status = await answer.status()
            if status != 200:
                return _endpoint_error(asked, answer, status, await answer.body())
            if wanted.stream:
                return await _relayed(request, asked, answer)
            found = _completion(asked, await answer.body())
            shown = _answer(found, asked, wanted)
            return json_response(shown, headers=dict(answer.router_headers()))
        except Failed as failed:
            asked.record.failure = failed.failure
            return error_response(failed.failure, _OPENAI, answer.router_headers())
        finally:
            answer.close()

    def _body(self, wanted: Sampling, fields: TopLevel) -> bytes:
        """Build the request for the fleet: the client's own bytes, over the parameters of the
        model."""
        said = self._said.get(canonical(wanted.model)) or ManagedModel()
        if not said.is_active:
            message = f"the model '{wanted.model}' is not active here; GET {self._prefix}/models "
            raise Failed(Failure(Kind.MODEL_NOT_FOUND, f"{message}says which are"))
        defaults = {name: value for name, value in said.parameters.items() if name not in _RESERVED}
        given = {name: raw for name, raw in fields.items() if bytes(memoryview(raw)[:5]) != b"null"}
        return msgspec.json.encode({**DEFAULTS, **defaults, **given})


async def _relayed(
    request: web.BaseRequest, asked: InternalRequest, answer: SubrequestResponse
) -> web.StreamResponse:
    """Relay a stream. A stream that breaks off ends without the terminating chunk.

    Raises:
        Failed: the response is not a stream.
    """
    if not answer.streams:
        endpoint = asked.record.endpoint
        message = f"endpoint '{endpoint}' answered with something else than a stream; try again"
        raise Failed(answer.fail(Failure(Kind.BAD_ANSWER, message, endpoint)))
    try:
        response = await asked.stream(request, answer, "text/event-stream")
        async for piece in answer.pieces():
            await response.write(piece)
        failure = asked.record.failure
        if failure is not None:
            if answer.compressed:
                await response.write(_OPENAI.in_band_error(failure, mid_record=True))
            return written(False)
        await response.write_eof()
    except ConnectionError:
        return written(False)  # the client has disconnected
    return response


def _endpoint_error(
    asked: InternalRequest, answer: SubrequestResponse, status: int, body: bytes
) -> web.Response:
    """Build the response for an endpoint's error against the request, in this API's form."""
    record = asked.record
    message = _said_error(body) or f"endpoint '{record.endpoint}' answered {status}"
    if status in (401, 403):  # the endpoint rejects olla, not the caller
        message = f"endpoint '{record.endpoint}' does not let the router in: {message}"
        failure = Failure(Kind.UPSTREAM_UNAUTHORIZED, message[:_SHOWN_MAX], record.endpoint)
        return error_response(failure, _OPENAI, answer.router_headers())
    kind = {400: Kind.BAD_REQUEST, 404: Kind.MODEL_NOT_FOUND}.get(status, Kind.UPSTREAM_STATUS)
    response = error_response(
        Failure(kind, message, record.endpoint), _OPENAI, answer.router_headers()
    )
    response.set_status(status)
    return response


def _said_error(body: bytes) -> str | None:
    """Return the error text of an endpoint; None if there is none or too much."""
    try:
        error = msgspec.json.decode(body, type=_ErrorTold).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return error_text(error, _ERROR_MAX)


# --- responses ------------------------------------------------------------------------------

_NULL = msgspec.Raw(b"null")
_ASSISTANT, _EMPTY = msgspec.Raw(b'"assistant"'), msgspec.Raw(b'""')
_T = TypeVar("_T")


class _ErrorTold(msgspec.Struct):
    """An endpoint's error. Its parts stay JSON, so that they cannot become millions of objects; the
    same holds for the other structs."""

    error: msgspec.Raw = _NULL


class _Choice(msgspec.Struct):
    """One choice of a completion."""

    message: msgspec.Raw = _NULL
    text: msgspec.Raw = _NULL
    finish_reason: msgspec.Raw = _NULL


class _Counts(msgspec.Struct):
    """The token counts of a completion."""

    prompt_tokens: msgspec.Raw = _NULL
    completion_tokens: msgspec.Raw = _NULL


class _Completion(msgspec.Struct):
    """An endpoint's whole response."""

    id: msgspec.Raw = _NULL
    created: msgspec.Raw = _NULL
    model: msgspec.Raw = _NULL
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NULL


def _completion(asked: InternalRequest, body: bytes) -> _Completion:
    """Parse an endpoint's whole response.

    Raises:
        Failed: it is not a completion.
    """
    found = None
    if body.count(b"{") <= _OBJECTS_MAX and _is_text(body):
        found = _read(msgspec.Raw(body), _Completion)
    if found is None or not found.choices:
        endpoint = asked.record.endpoint
        said = _said_error(body)
        what = f": {said}" if said else "; try again"
        message = f"endpoint '{endpoint}' answered something that is no completion{what}"
        raise Failed(Failure(Kind.BODY_FRAMING, message, endpoint))
    return found


def _is_text(body: bytes) -> bool:
    """Whether the bytes are UTF-8. Parsing does not check the parts that are passed on."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _answer(found: _Completion, asked: InternalRequest, wanted: Sampling) -> dict[str, Any]:
    chats = isinstance(wanted, ChatRequest)
    own_id = _read(found.id, str) or asked.record.id
    return {
        "id": f"cmpl-{own_id.removeprefix('chatcmpl-').removeprefix('cmpl-')}",
        "object": "chat.completion" if chats else "text.completion",
        "created": _whole(found.created) or int(asked.record.started_wall),
        "model": _read(found.model, str) or wanted.model,
        "choices": [
            {
                **(_message(each) if chats else {"text": _read(each.text, str) or ""}),
                "finish_reason": _read(each.finish_reason, str) or "stop",
                "index": at,
            }
            for at, each in enumerate((found.choices or ())[:_CHOICES_MAX])
        ],
        "usage": _usage(found.usage),
    }


def _message(choice: _Choice) -> dict[str, Any]:
    """Return the message of a choice unchanged, except for fields that the form requires."""
    said = _read(choice.message, dict[str, msgspec.Raw]) or {}
    role, content = said.get("role", _NULL), said.get("content", _NULL)
    if _read(role, str) is None:
        said["role"] = _ASSISTANT
    if (content != _NULL and _read(content, str) is None) or "content" not in said:
        said["content"] = _EMPTY
    return {"message": {"role": said.pop("role"), "content": said.pop("content"), **said}}


def _usage(told: msgspec.Raw) -> dict[str, int]:
    counts = _read(told, _Counts) or _Counts()
    prompt, output = _whole(counts.prompt_tokens) or 0, _whole(counts.completion_tokens) or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
    }


def _whole(told: msgspec.Raw) -> int | None:
    value = _read(told, int)
    return value if value is not None and 0 <= value <= _INT_MAX else None


def _read(told: msgspec.Raw, shape: type[_T]) -> _T | None:
    """Parse JSON as a type; None if it does not fit."""
    try:
        return msgspec.json.decode(told, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


# --- models ---------------------------------------------------------------------------------


def _routable(view: EndpointView) -> bool:
    return view.routable and view.profile is not None


def _described(one: Merged) -> str:
    """Describe what the fleet knows about a model."""
    known = Details.of(one.model)
    embeds = known.capabilities is not None and "embedding" in known.capabilities
    kind = "embedding model" if embeds else "model"
    words = f"{known.family} {kind}" if known.family else kind
    if known.parameter_size:
        words += f" with {known.parameter_size} parameters"
    if known.quantization and known.quantization != "unknown":
        words += f", quantized as {known.quantization}"
    return words[:1].upper() + words[1:]
