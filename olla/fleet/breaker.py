"""What traffic says of an endpoint: a circuit breaker over the outcomes of attempts.

Closed lets requests through; so many failures in a row open it; after a time that doubles each
time it lets one trial through (half-open), and that one's outcome decides. Pure. Whoever feeds it
leaves out what says nothing of the endpoint: clients that hang up.
"""

import enum

import msgspec

__all__ = ["Breaker", "BreakerState", "fail", "succeed", "tick"]

FAILURES_TO_OPEN = 5
"""Failures in a row."""
OPEN_SECONDS_FIRST = 1.0
OPEN_SECONDS_MAX = 30.0


class BreakerState(enum.Enum):
    """Whether recent requests to an endpoint went well."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    """One trial at a time."""


class Breaker(msgspec.Struct, frozen=True):
    """An endpoint's breaker.

    `failures` in a row while closed; `openings` in a row without a success between them;
    `until`: when an open one becomes half-open, in monotonic seconds.
    """

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    openings: int = 0
    until: float = 0.0


CLOSED = Breaker()


def succeed(breaker: Breaker, now: float) -> Breaker:
    """After an attempt that went well.

    An answer to a request that was sent before the breaker opened does not close it: only a trial
    does.
    """
    if breaker.state is BreakerState.OPEN:
        return breaker
    return CLOSED


def fail(breaker: Breaker, now: float) -> Breaker:
    """After an attempt that failed through the endpoint's fault."""
    if breaker.state is BreakerState.OPEN:
        return breaker
    failures = breaker.failures + 1
    if breaker.state is BreakerState.CLOSED and failures < FAILURES_TO_OPEN:
        return Breaker(BreakerState.CLOSED, failures, breaker.openings)
    seconds = min(OPEN_SECONDS_FIRST * 2.0 ** min(breaker.openings, 10), OPEN_SECONDS_MAX)
    return Breaker(BreakerState.OPEN, failures, breaker.openings + 1, now + seconds)


def tick(breaker: Breaker, now: float) -> Breaker:
    """After time has passed."""
    if breaker.state is BreakerState.OPEN and now >= breaker.until:
        return msgspec.structs.replace(breaker, state=BreakerState.HALF_OPEN)
    return breaker
