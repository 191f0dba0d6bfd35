"""The end of a try: the lease goes back, and what happened is told to whom it concerns."""

from typing import Final

from olla.admission.tickets import Answer, Lease
from olla.dialects.dialect import Operation
from olla.dialects.paths import Target
from olla.failures import LEFT, Failure, Kind
from olla.proxy.counting import estimate_tokens
from olla.proxy.describing import answer_of
from olla.proxy.relay import Relay
from olla.proxy.stations import Stations
from olla.record import AttemptRecord, RequestRecord

__all__ = ["settle"]

_CHANGES_MODELS: Final = frozenset(
    {Operation.PULL, Operation.CREATE, Operation.COPY, Operation.DELETE}
)
_REFUSALS: Final = frozenset(
    {Kind.UPSTREAM_LIMITED, Kind.UPSTREAM_UNAUTHORIZED, Kind.UPSTREAM_MODEL_GONE}
)
"""What an endpoint says of one model or of olla, while it may be well otherwise."""


def settle(
    stations: Stations,
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
    now = stations.clock.now()
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
    line, model = lease.line, lease.model
    if failure is not None and line is not None and failure.kind in _REFUSALS:
        line.twin.refused(line, now, failure.retry_after)
    if not lease.released:
        learnt: Answer | None = None
        if failure is None and summary is not None and record.status == 200:
            learnt = answer_of(lease.features, summary, streamed=record.streaming)
        stations.admission.release(lease, now, learnt)
    if failure is None or failure.kind not in LEFT:
        stations.fleet.observe(trace.endpoint, failure, model if lease.counted else None)
    if target.operation in _CHANGES_MODELS:
        stations.fleet.probe_now(trace.endpoint)
