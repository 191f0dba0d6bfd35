"""The end of a try: the lease goes back, and what happened is told to whom it concerns."""

from typing import Final

from olla.admission.queue_types import AnswerStats, Lease
from olla.dialects.dialect import Operation
from olla.dialects.paths import Target
from olla.failures import LEFT, Failure, Kind, kind_of_status
from olla.fleet.retry_after import retry_after
from olla.proxy.exchange.context import Upstreams
from olla.proxy.exchange.request_features import answer_of
from olla.proxy.exchange.token_estimate import estimate_tokens
from olla.proxy.http.message_fields import Passed
from olla.proxy.upstream.relay import Relay
from olla.record import AttemptRecord, RequestRecord

__all__ = ["finish_attempt", "relayed_error", "retry_pause", "upstream_error"]

_CHANGES_MODELS: Final = frozenset(
    {Operation.PULL, Operation.CREATE, Operation.COPY, Operation.DELETE}
)
_REFUSALS: Final = frozenset(
    {Kind.UPSTREAM_LIMITED, Kind.UPSTREAM_UNAUTHORIZED, Kind.UPSTREAM_MODEL_GONE}
)
"""What an endpoint says of one model or of olla, while it may be well otherwise."""


def finish_attempt(
    upstreams: Upstreams,
    target: Target,
    record: RequestRecord,
    lease: Lease,
    trace: AttemptRecord,
    relay: Relay | None,
    failure: Failure | None,
) -> None:
    """A try has ended, well or with a failure; `relay` is what passed its answer on, if any did.

    A client that left is no evidence of anything.
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
            record.content = (record.content[0], relay.kept())
        if summary is not None:
            record.prompt_tokens = summary.prompt_tokens
            record.output_tokens = summary.output_tokens
            record.load_seconds = summary.load_seconds
    if record.inference and record.output_tokens is None:
        estimate_tokens(record, lease, relay, failure, now)
    instance, model = lease.instance, lease.model
    if failure is not None and instance is not None and failure.kind in _REFUSALS:
        instance.twin.refused(instance, now, failure.retry_after)
    if not lease.released:
        learnt: AnswerStats | None = None
        if failure is None and summary is not None and record.status == 200:
            learnt = answer_of(lease.features, summary, streamed=record.streaming)
        upstreams.admission.release(lease, now, learnt)
    if failure is None or failure.kind not in LEFT:
        upstreams.fleet.observe(trace.endpoint, failure, model if lease.counted else None)
    if target.operation in _CHANGES_MODELS:
        upstreams.fleet.probe_now(trace.endpoint)


_ADVICE = {
    Kind.UPSTREAM_UNAUTHORIZED: ": it refuses what olla shows to it; set its auth "
    "(discovery.static.endpoints), or forward_authorization where clients have keys of their own",
    Kind.UPSTREAM_MODEL_GONE: ": it does not have the model any more",
}
"""What the operator may do about it."""


def retry_pause(passed: Passed, wall: float) -> float | None:
    """The seconds an endpoint asks to be left alone, as of `wall` (Unix time); None where it does
    not say."""
    value = passed.retry_after
    return retry_after(value.decode("latin-1"), wall) if value else None


def upstream_error(endpoint: str, status: int, pause: float | None) -> Failure:
    """The endpoint has answered with an error of its own."""
    kind = kind_of_status(status) or Kind.UPSTREAM_STATUS
    return Failure(
        kind,
        f"endpoint '{endpoint}' answered {status}{_ADVICE.get(kind, '')}",
        endpoint,
        retry_after=pause,
        endpoint_status=status,
    )


def relayed_error(endpoint: str, status: int, pause: float | None) -> Failure | None:
    """The same for an answer that was relayed; None where it says nothing of the endpoint."""
    if status == 404 or kind_of_status(status) is None:
        return None
    return upstream_error(endpoint, status, pause)
