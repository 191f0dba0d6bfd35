"""The queue's limits, and the errors for requests that exceed them."""

from math import ceil

import msgspec

from olla.failures import Failure, Kind
from olla.routing.decision import Reason, Refuse

__all__ = ["QueueLimits", "queue_full", "timed_out"]

_RETRY_AFTER_MAX = 60.0
"""Seconds. Clients sleep for the whole time."""


class QueueLimits(msgspec.Struct, frozen=True):
    """The queue's limits.

    `max_queue` requests may wait, for `timeout` seconds each. A load that olla itself started
    continues for `load_grace` seconds after the last request that waited for it. `repriced` is the
    number of queued requests that are priced again at a change; the others keep their place while
    it can serve them.
    """

    max_queue: int = 1000
    timeout: float = 600.0
    load_grace: float = 120.0
    repriced: int = 64


def queue_full(waiting: int, expected: float, limits: QueueLimits) -> Refuse:
    """Reject a request because too many wait, or its wait would be too long (`expected` seconds).
    `Retry-After` is the end of that wait."""
    if waiting >= limits.max_queue:
        why = f"{waiting} requests are waiting already (routing.max_queue)"
    else:
        why = (
            f"it would have to wait for about {expected:.0f} s, more than "
            f"{limits.timeout:g} s (routing.queue_timeout)"
        )
    after = min(max(1.0, ceil(expected)), _RETRY_AFTER_MAX)
    failure = Failure(
        Kind.QUEUE_FULL,
        f"all endpoints are busy: {why}; try again in {after:.0f} s",
        retry_after=after,
    )
    return Refuse(failure, Reason.QUEUE_FULL)


def timed_out(model: str, limits: QueueLimits) -> Refuse:
    """Reject a request that has reached its time limit in the queue."""
    failure = Failure(
        Kind.QUEUE_TIMEOUT,
        f"no endpoint became free for model '{model}' within {limits.timeout:g} s "
        "(routing.queue_timeout); try again later",
    )
    return Refuse(failure, Reason.QUEUED)
