"""The queue's limits, and what a request is told that they turn away."""

from math import ceil

import msgspec

from olla.failures import Failure, Kind
from olla.routing.decision import Reason, Refuse

__all__ = ["QueueLimits", "queue_full", "timed_out"]

_RETRY_AFTER_MAX = 60.0
"""Seconds. Clients sleep as long as they are told."""


class QueueLimits(msgspec.Struct, frozen=True):
    """The queue's bounds.

    `max_queue` requests may wait, for `timeout` seconds each; a load of olla's own goes on for
    `load_grace` seconds after the last request that waited for it. `repriced` is how many waiting
    requests are priced again at a change; the others stay where they are, if they still can.
    """

    max_queue: int = 1000
    timeout: float = 600.0
    load_grace: float = 120.0
    repriced: int = 64


def queue_full(waiting: int, expected: float, limits: QueueLimits) -> Refuse:
    """No room for one more: too many wait, or it would have to wait too long (`expected`
    seconds). It is told to come back when its wait would be over."""
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
    """A request has waited for as long as it may."""
    failure = Failure(
        Kind.QUEUE_TIMEOUT,
        f"no endpoint became free for model '{model}' within {limits.timeout:g} s "
        "(routing.queue_timeout); try again later",
    )
    return Refuse(failure, Reason.QUEUED)
