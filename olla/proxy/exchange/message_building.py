"""Build the request for an endpoint, and the head of the response for the client."""

from typing import Final, assert_never

import msgspec

from olla.dialects.dialect import Right
from olla.dialects.json_scan import JsonObject
from olla.dialects.multipart import Form, multipart_model_edit
from olla.dialects.paths import BodyUse, Target
from olla.dialects.rewrite import Edit, edited, model_edit, parts
from olla.fleet.model_names import canonical
from olla.proxy.exchange.attempt import OutgoingRequest
from olla.proxy.exchange.request_parsing import LONG, Scanned
from olla.proxy.http.headers import request_head, response_head
from olla.proxy.http.request import IncomingRequest
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.relay import Downstream
from olla.routing.decision import Choice, ChooseEndpoint, ChooseFallback, ChooseInstance

__all__ = ["ReceivedBody", "build_request", "build_response"]

_MANAGE: Final = Right.MANAGE
_STREAMED: Final = BodyUse.STREAMED
_MULTIPART: Final = BodyUse.MULTIPART


class ReceivedBody(msgspec.Struct, frozen=True):
    """A request body as received, the edits to make in it, and the result of its scan."""

    raw: bytes
    edits: tuple[Edit, ...] = ()
    scanned: Scanned = None


def build_request(
    incoming: IncomingRequest,
    target: Target,
    received: ReceivedBody,
    requested_model: str | None,
    choice: Choice,
    request_id: str,
    via: str | None = None,
) -> OutgoingRequest:
    """Build the request for the chosen endpoint.

    `requested_model` is the model as the client spelled it. Sends `100 Continue` to a client that
    waits for it before it streams its body.

    Raises:
        Failed: the model's name in the body cannot be replaced.
    """
    body, edits = received.raw, received.edits
    streamed = target.body is _STREAMED and incoming.has_body
    edit = _model_edit(incoming, target, received, requested_model, choice)
    if edit is not None:
        edits = (*edits, edit)
    pieces: tuple[bytes | memoryview, ...] = ()
    length: int | None = len(body) if body or incoming.has_body else None
    if len(body) > LONG:
        pieces = parts(body, edits)
        length = sum(map(len, pieces))
        body = b""
    elif edits:
        body = edited(body, edits)
        length = len(body)
    if streamed:
        length = incoming.length
    chunked = streamed and length is None
    unchanging = incoming.outgoing(target, choice.view.spec, via)
    head = request_head(unchanging, request_id, length, chunked=chunked)
    if streamed and incoming.expects_continue():
        incoming.send_continue()
    return OutgoingRequest(
        incoming.method,
        head,
        body,
        incoming.pieces if streamed else None,
        chunked,
        target.right is _MANAGE,
        pieces,
    )


def build_response(
    head: ResponseHead, downstream: Downstream, fields: bytes, *, body_read: bool, limited: bool
) -> bytes:
    """Build the head of the response for the client, and decide whether to keep its connection.

    `fields` are olla's own header lines. `body_read` says that the request body was read to its
    end. `limited` says that olla rate-limits this client. A `Trailer` is announced to clients that
    accept trailers.
    """
    chunked = head.chunked and not head.bodiless and downstream.minor == 1
    delimited = chunked or head.bodiless or head.length is not None
    if not delimited or not body_read:
        downstream.persistent = False
    return response_head(
        head,
        fields,
        limited=limited,
        keep_alive=downstream.persistent,
        minor=downstream.minor,
        chunked=chunked,
        trailer=b"X-Olla-Response-Time" if chunked and downstream.wants_trailers else None,
    )


def _model_edit(
    incoming: IncomingRequest,
    target: Target,
    received: ReceivedBody,
    requested_model: str | None,
    choice: Choice,
) -> Edit | None:
    """Return the edit that replaces the model's name with the endpoint's spelling, if needed."""
    match choice:
        case ChooseInstance():
            view, model = choice.view, choice.model
        case ChooseEndpoint() | ChooseFallback():
            return None
        case never:
            assert_never(never)
    if requested_model is None:
        return None
    name = view.models[model].name
    if name == requested_model:
        return None
    renamed = requested_model != model and canonical(requested_model) != model
    strict = view.profile is not None and view.profile.name != "ollama"
    if not renamed and not strict:
        return None
    scanned = received.scanned
    if target.body is _MULTIPART:
        content_type = incoming.header("Content-Type") or ""
        form = scanned if isinstance(scanned, Form) else None
        return multipart_model_edit(content_type, received.raw, name, form)
    json = scanned if isinstance(scanned, JsonObject) else None
    return model_edit(received.raw, target.operation, name, json)
