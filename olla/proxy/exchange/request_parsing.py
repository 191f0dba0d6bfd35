"""Parse a request's body: its model, its options, and the features for routing."""

from typing import Final

from olla.access.caller import Caller, refuse_model
from olla.access.visibility import EVERYTHING, Visibility
from olla.dialects.dialect import Operation, Peek
from olla.dialects.json_scan import JsonObject, Steps
from olla.dialects.multipart import Form, peek_multipart, scan_form
from olla.dialects.paths import BodyUse, Target
from olla.dialects.peek import scan_body, scan_leniently
from olla.dialects.rewrite import Edit
from olla.failures import Failed
from olla.proxy.exchange.context import RequestConfig, Upstreams
from olla.proxy.exchange.context_length import fit_context
from olla.proxy.exchange.request_features import explain_routing, features_of
from olla.proxy.http.request import IncomingRequest
from olla.record import RequestRecord
from olla.routing.features import Features

__all__ = ["LONG", "Scanned", "parse_request", "scan"]

LONG = 1_048_576
"""Bytes. A longer body is scanned in steps before it is parsed; a shorter one takes a few
milliseconds at most."""

_CONTENT_MAX = 1_048_576
"""Bytes of a request that are recorded if the operator enables it."""
_NO_BODY: Final = Peek(model=None, stream=False)
# Looking up an Enum member on its class takes 0.1 µs each time.
_JSON: Final = BodyUse.JSON
_MULTIPART: Final = BodyUse.MULTIPART
_OTHER: Final = Operation.OTHER


Scanned = JsonObject | Form | None
"""The result of scanning a long body."""


def scan(target: Target, incoming: IncomingRequest, body: bytes) -> Steps[Scanned]:
    """Scan a long body in steps.

    Raises:
        Failed: the body is invalid for the operation.
    """
    if target.body is _JSON:
        lenient = _is_unknown(target)
        return (yield from scan_leniently(body) if lenient else scan_body(body))
    if target.body is _MULTIPART:
        return (yield from scan_form(incoming.header("Content-Type") or "", body))
    return None


def parse_request(
    config: RequestConfig,
    upstreams: Upstreams,
    target: Target,
    incoming: IncomingRequest,
    record: RequestRecord,
    body: bytes,
    caller: Caller,
    scanned: Scanned = None,
) -> tuple[Features, tuple[Edit, ...], bool, str | None]:
    """Parse a request and update its record.

    `scanned` is the result of scanning a long body. Returns the features for routing, the edits to
    the body, whether the request takes a slot, and an explanation if the client requested one.

    Raises:
        Failed: the body is invalid for the operation, or the caller may not use the model.
    """
    peek = _NO_BODY
    edits: tuple[Edit, ...] = ()
    form = scanned if isinstance(scanned, Form) else None
    found = scanned if isinstance(scanned, JsonObject) else None
    if target.body is _JSON:
        peek = target.dialect.peek(target.operation, body, found)
    elif target.body is _MULTIPART:
        peek = peek_multipart(incoming.header("Content-Type") or "", body, form)
    if peek.load_options:
        peek, edits, record.rewritten = fit_context(config.context_rule, peek, body, found)
    record.model = peek.model
    if caller.models is not None:
        for name in (peek.model, *peek.others):
            # An unknown path could expose all models of the node.
            refusal = refuse_model(caller, name, needed=target.needs_model or _is_unknown(target))
            if refusal is not None:
                raise Failed(refusal)
    record.streaming = peek.stream
    record.inference = target.inference
    record.load_options = peek.load_options
    if config.keep_content and target.inference:
        record.content = (body[:_CONTENT_MAX].decode("utf-8", "replace"), "")
    features = features_of(config, upstreams, target, incoming, peek, caller)
    # Unloading takes no slot and must not load the model first.
    counted = target.inference and not (peek.only_loads and peek.keep_alive == 0)
    explanation = None
    if not incoming.plain and incoming.header("X-Olla-Explain") is not None:
        explanation = explain_routing(upstreams, features, Visibility.of(caller))
    if config.log_explanation is not None:
        config.log_explanation(record.id, explain_routing(upstreams, features, EVERYTHING))
    return features, edits, counted, explanation


def _is_unknown(target: Target) -> bool:
    return target.operation is _OTHER
