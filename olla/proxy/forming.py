"""The request as an endpoint gets it: head, body, and the model as the endpoint spells it."""

from olla.dialects.dialect import Category, Peek
from olla.dialects.multipart import replace_multipart_model
from olla.dialects.paths import BodyUse, Target
from olla.dialects.rewrite import replace_model
from olla.fleet.names import canonical
from olla.proxy.attempt import OutgoingRequest
from olla.proxy.headers import request_head
from olla.proxy.incoming import Incoming
from olla.routing.decision import Choose

__all__ = ["form_request"]


def form_request(
    incoming: Incoming,
    target: Target,
    body: bytes,
    peek: Peek,
    choice: Choose,
    *,
    request_id: str,
    via: str | None = None,
) -> OutgoingRequest:
    """The request for the chosen endpoint. A streamed body is told to come, if it waits for that.

    Raises:
        Failed: the body cannot be given another model name.
    """
    streamed = target.body is BodyUse.STREAMED and incoming.has_body
    body = _body_for(incoming, target, body, peek, choice)
    length: int | None = len(body) if body or incoming.has_body else None
    if streamed:
        length = incoming.length
    chunked = streamed and length is None
    head = request_head(
        incoming.method,
        target.upstream_target,
        choice.view.spec,
        incoming.headers,
        request_id=request_id,
        peer=incoming.peer,
        length=length,
        chunked=chunked,
        via=via,
    )
    if streamed and incoming.expects_continue():
        incoming.send_continue()
    return OutgoingRequest(
        method=incoming.method,
        head=head,
        body=body,
        pieces=incoming.pieces if streamed else None,
        chunked=chunked,
        fresh_connection=target.category is Category.MANAGE,
    )


def _body_for(incoming: Incoming, target: Target, body: bytes, peek: Peek, choice: Choose) -> bytes:
    """The body, with the model spelled as the endpoint spells it where that matters."""
    view, model = choice.view, choice.model
    if model is None or peek.model is None:
        return body
    own = view.models[model].name
    renamed = canonical(peek.model) != model
    strict = view.profile is not None and view.profile.name != "ollama" and own != peek.model
    if not renamed and not strict:
        return body
    if target.body is BodyUse.MULTIPART:
        form = incoming.header("Content-Type") or ""
        return replace_multipart_model(form, body, own)
    return replace_model(body, target.operation, own)
