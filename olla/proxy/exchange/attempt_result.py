"""Finish an attempt: release its lease, and update the record, the estimates and the fleet."""

from typing import Final

from olla.admission.queue_types import AnswerStats, Lease
from olla.dialects.dialect import Operation
from olla.dialects.paths import Target
from olla.failures import LEFT, Failure, Kind, kind_of_status
from olla.fleet.retry_after import retry_after
from olla.proxy.exchange.context import Upstreams
from olla.proxy.exchange.request_features import answer_stats
from olla.proxy.exchange.token_estimate import estimate_tokens
from olla.proxy.http.message_fields import Passed
from olla.proxy.upstream.relay import Relay
from olla.record import AttemptRecord, RequestRecord

__all__ = ["finish_attempt", "relayed_error", "retry_after_seconds", "upstream_error"]

_CHANGES_MODELS: Final = frozenset(
    {Operation.PULL, Operation.CREATE, Operation.COPY, Operation.DELETE}
)
_REJECTIONS: Final = frozenset(
    {Kind.UPSTREAM_LIMITED, Kind.UPSTREAM_UNAUTHORIZED, Kind.UPSTREAM_MODEL_GONE}
)
"""Failures that concern one model or olla's access, on an endpoint that may be healthy."""


def finish_attempt(
    upstreams: Upstreams,
    target: Target,
    record: RequestRecord,
    lease: Lease,
    trace: AttemptRecord,
    relay: Relay | None,
    failure: Failure | None,
) -> None:
    """Finish an attempt that succeeded or ended with a failure. `relay` is None if nothing was
    relayed.

    A client's disconnect is not counted as evidence about the endpoint.
    """
    now = upstreams.clock.now()
    summary = None
    trace.ended = now
    trace.failure = failure
    if relay is not None:
        summary = relay.summary
        record.bytes_out = relay.bytes_out
        record.failure = failure
        if record.content is not None:
            record.content = (record.content[0], relay.content())
        if summary is not None:
            record.prompt_tokens = summary.prompt_tokens
            record.output_tokens = summary.output_tokens
            record.load_seconds = summary.load_seconds
    if record.inference and record.output_tokens is None:
        estimate_tokens(record, lease, relay, failure, now)
    instance, model = lease.instance, lease.model
    if failure is not None and instance is not None and failure.kind in _REJECTIONS:
        instance.twin.refused(instance, now, failure.retry_after)
    if not lease.released:
        stats: AnswerStats | None = None
        if failure is None and summary is not None and record.status == 200:
            stats = answer_stats(lease.features, summary, streamed=record.streaming)
        upstreams.admission.release(lease, now, stats)
    if failure is None or failure.kind not in LEFT:
        upstreams.fleet.observe(trace.endpoint, failure, model if lease.counted else None)
    if target.operation in _CHANGES_MODELS:
        upstreams.fleet.probe_now(trace.endpoint)


_DETAILS = {
    Kind.UPSTREAM_UNAUTHORIZED: ": it rejects olla's credentials; set its auth "
    "(discovery.static.endpoints), or forward_authorization if clients have their own keys",
    Kind.UPSTREAM_MODEL_GONE: ": it no longer has the model",
}
"""Explanations and advice for the operator."""


def retry_after_seconds(passed: Passed, wall: float) -> float | None:
    """Return the seconds in an endpoint's `Retry-After`, as of `wall` (Unix time), or None."""
    value = passed.retry_after
    return retry_after(value.decode("latin-1"), wall) if value else None


def upstream_error(endpoint: str, status: int, retry_after: float | None) -> Failure:
    """Return the failure of an attempt that the endpoint answered with an error."""
    kind = kind_of_status(status) or Kind.UPSTREAM_STATUS
    return Failure(
        kind,
        f"endpoint '{endpoint}' answered {status}{_DETAILS.get(kind, '')}",
        endpoint,
        retry_after=retry_after,
        endpoint_status=status,
    )


def relayed_error(endpoint: str, status: int, retry_after: float | None) -> Failure | None:
    """Return the failure of a relayed error; None if it only concerns the request."""
    if status == 404 or kind_of_status(status) is None:
        return None
    return upstream_error(endpoint, status, retry_after)
