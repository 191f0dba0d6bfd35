"""The request as an endpoint gets it, and the head of its answer as the client gets it."""

from typing import Final, assert_never

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

__all__ = ["build_request", "build_response"]
_MANAGE: Final = Right.MANAGE
_STREAMED: Final = BodyUse.STREAMED
_MULTIPART: Final = BodyUse.MULTIPART


def build_request(
    incoming: IncomingRequest,
    target: Target,
    body: bytes,
    asked_for: str | None,
    choice: Choice,
    request_id: str,
    via: str | None = None,
    edits: tuple[Edit, ...] = (),
    scanned: Scanned = None,
) -> OutgoingRequest:
    """The request for the chosen endpoint; `asked_for` is the model as it was named, `edits` are
    what is to be changed in the body anyway, `scanned` is what a scan of a long one has found. A
    streamed body is told to come, if it waits for that.

    Raises:
        Failed: the body cannot be given another model name.
    """
    streamed = target.body is _STREAMED and incoming.has_body
    edit = _model_edit(incoming, target, body, asked_for, choice, scanned)
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
    """The answer's head for the client; it promises a trailer to one that takes them.

    `fields` are olla's own; `body_read` says that the request's body was read to its end, `limited`
    that olla limits this client and `fields` tell how far. Decides whether the client's connection
    outlives the answer.
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
    body: bytes,
    asked_for: str | None,
    choice: Choice,
    scanned: Scanned,
) -> Edit | None:
    """What spells the model as the endpoint spells it, where that matters."""
    match choice:
        case ChooseInstance():
            view, model = choice.view, choice.model
        case ChooseEndpoint() | ChooseFallback():
            return None
        case never:
            assert_never(never)
    if asked_for is None:
        return None
    own = view.models[model].name
    if own == asked_for:
        return None
    renamed = asked_for != model and canonical(asked_for) != model
    strict = view.profile is not None and view.profile.name != "ollama"
    if not renamed and not strict:
        return None
    if target.body is _MULTIPART:
        content_type = incoming.header("Content-Type") or ""
        form = scanned if isinstance(scanned, Form) else None
        return multipart_model_edit(content_type, body, own, form)
    found = scanned if isinstance(scanned, JsonObject) else None
    return model_edit(body, target.operation, own, found)
