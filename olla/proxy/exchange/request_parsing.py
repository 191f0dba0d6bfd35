"""What a request asks for, once its body is here."""

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
from olla.proxy.exchange.request_features import explained, features_of
from olla.proxy.http.request import IncomingRequest
from olla.record import RequestRecord
from olla.routing.features import Features

__all__ = ["LONG", "Scanned", "parse_request", "scan"]

LONG = 1_048_576
"""Bytes. A longer body is scanned in steps before it is understood; a shorter one takes some
milliseconds at most, and no more than before."""

_KEPT_MAX = 1_048_576
"""Bytes of a request that are kept, where the operator wants them."""
_NO_BODY: Final = Peek(model=None, stream=False)
# Members of an Enum take a slow way when they are looked up on their class, 0.1 µs each time.
_JSON: Final = BodyUse.JSON
_MULTIPART: Final = BodyUse.MULTIPART
_OTHER: Final = Operation.OTHER


Scanned = JsonObject | Form | None
"""What a scan of a long body has found."""


def scan(target: Target, incoming: IncomingRequest, body: bytes) -> Steps[Scanned]:
    """Scan a long body, a step at a time.

    Raises:
        Failed: the body is not what the operation needs.
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
    """What routing may know of a request, what is to be changed in its body, whether it takes a
    slot, and how its candidates are priced where that was asked for. Notes what it finds in the
    record. `scanned` is what a scan of a long body has found.

    Raises:
        Failed: the body is not what the operation needs, or the model is not for the caller.
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
            # A path that only the node knows may tell of all its models.
            refusal = refuse_model(caller, name, needed=target.needs_model or _is_unknown(target))
            if refusal is not None:
                raise Failed(refusal)
    record.streaming = peek.stream
    record.inference = target.inference
    record.load_options = peek.load_options
    if config.keep_content and target.inference:
        record.content = (body[:_KEPT_MAX].decode("utf-8", "replace"), "")
    features = features_of(config, upstreams, target, incoming, peek, caller)
    # Unloading takes no slot, and must not have the model loaded first.
    counted = target.inference and not (peek.only_loads and peek.keep_alive == 0)
    explanation = None
    if not incoming.plain and incoming.header("X-Olla-Explain") is not None:
        explanation = explained(upstreams, features, Visibility.of(caller))
    if config.log_explanation is not None:
        config.log_explanation(record.id, explained(upstreams, features, EVERYTHING))
    return features, edits, counted, explanation


def _is_unknown(target: Target) -> bool:
    return target.operation is _OTHER
