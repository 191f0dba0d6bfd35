"""A circuit breaker over the outcomes of requests to an endpoint.

A closed breaker lets requests through. Consecutive failures open it, and so does a share of
failures among the latest outcomes, which detects an endpoint that fails every other request. An
open breaker keeps requests away for a time that doubles with each opening. Then it is half-open:
one trial at a time goes through, and its outcome decides. A recovered endpoint starts slowly: two
requests at a time, twice as many after each success, until the bound is lifted, so that a node that
has just started is not overrun.

Pure. The caller omits outcomes that say nothing about the endpoint, such as clients that
disconnect. Routing, which knows what is in flight, ensures that there is one trial at a time. A
trial whose client disconnects is followed by the next.
"""

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = [
    "TRANSITIONS",
    "Breaker",
    "BreakerEvent",
    "BreakerState",
    "come_back",
    "fail",
    "succeed",
    "tick",
]

FAILURES_TO_OPEN = 5
"""Consecutive failures."""
WINDOW = 20
"""Outcomes that are remembered for the share of failures."""
WINDOW_MIN = 10
"""Minimum outcomes for a share."""
SHARE_TO_OPEN = 0.5
OPEN_SECONDS_FIRST = 1.0
OPEN_SECONDS_MAX = 30.0
_RAMP_FIRST = 2
_RAMP_MAX = 32
"""Concurrent requests that a recovered endpoint gets at first, and the bound at which the limit is
lifted."""
_JITTER = 0.1
_WINDOW_BITS = (1 << WINDOW) - 1


class BreakerState(enum.Enum):
    """Whether recent requests to an endpoint succeeded."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    """One trial at a time."""


_CLOSED: Final = BreakerState.CLOSED


class BreakerEvent(enum.Enum):
    """An event that may change the state."""

    SUCCESS = "success"
    FAILURE = "failure"
    """A failure below the thresholds."""
    TRIP = "trip"
    """A failure that reaches a threshold: consecutive, or as a share."""
    TIME_UP = "time_up"
    """The time of an open breaker is over."""


_S, _E = BreakerState, BreakerEvent

TRANSITIONS: Mapping[BreakerState, Mapping[BreakerEvent, BreakerState]] = {
    _S.CLOSED: {
        _E.SUCCESS: _S.CLOSED,
        _E.FAILURE: _S.CLOSED,
        _E.TRIP: _S.OPEN,
        _E.TIME_UP: _S.CLOSED,
    },
    # Requests that end while it is open began before, and say nothing new.
    _S.OPEN: {
        _E.SUCCESS: _S.OPEN,
        _E.FAILURE: _S.OPEN,
        _E.TRIP: _S.OPEN,
        _E.TIME_UP: _S.HALF_OPEN,
    },
    _S.HALF_OPEN: {
        _E.SUCCESS: _S.CLOSED,
        _E.FAILURE: _S.OPEN,
        _E.TRIP: _S.OPEN,
        _E.TIME_UP: _S.HALF_OPEN,
    },
}
"""State -> event -> state."""


class Breaker(msgspec.Struct, frozen=True):
    """An endpoint's breaker.

    `failures`: consecutive ones; `openings`: without a successful trial in between; `until`: when
    an open breaker becomes half-open (monotonic seconds); `window`: the latest outcomes while
    closed, one bit each, set for a failure, the newest lowest, of which `seen` count; `ramp`:
    concurrent requests that a recovered endpoint may get, 0 for any number.
    """

    state: BreakerState = _CLOSED
    failures: int = 0
    openings: int = 0
    until: float = 0.0
    window: int = 0
    seen: int = 0
    ramp: int = 0


_BACK = Breaker(ramp=_RAMP_FIRST)
_SPOTLESS = Breaker(seen=WINDOW)
"""Closed, with only successes in memory."""


def succeed(breaker: Breaker) -> Breaker:
    """Return the state after a successful attempt."""
    if breaker.state is _CLOSED:
        if breaker == _SPOTLESS:  # nearly always; this runs for each request
            return breaker
        window, seen = _remembered(breaker, failed=False)
        ramp = breaker.ramp * 2 if breaker.ramp * 2 < _RAMP_MAX else 0
        return Breaker(window=window, seen=seen, ramp=ramp)
    state = TRANSITIONS[breaker.state][BreakerEvent.SUCCESS]
    return _BACK if state is _CLOSED else breaker


def come_back(breaker: Breaker) -> Breaker:
    """Return the state after probes have found a failed endpoint healthy again."""
    if breaker.state is not _CLOSED:
        return breaker  # requests decide
    return _BACK


def fail(breaker: Breaker, now: float, draw: float) -> Breaker:
    """Return the state after an attempt that failed through the endpoint's fault.

    `draw` in [0, 1) is the random number for the jitter of ±10 %, which keeps several routers from
    sending their trials at the same moment.
    """
    if breaker.state is BreakerState.OPEN:
        return breaker
    failures = breaker.failures + 1
    window, seen = _remembered(breaker, failed=True)
    share = window.bit_count() / seen
    tripped = failures >= FAILURES_TO_OPEN or (seen >= WINDOW_MIN and share >= SHARE_TO_OPEN)
    state = TRANSITIONS[breaker.state][BreakerEvent.TRIP if tripped else BreakerEvent.FAILURE]
    if state is _CLOSED:
        return Breaker(state, failures, window=window, seen=seen, ramp=breaker.ramp)
    seconds = min(OPEN_SECONDS_FIRST * 2.0 ** min(breaker.openings, 10), OPEN_SECONDS_MAX)
    until = now + seconds * (1 + _JITTER * (2 * draw - 1))
    return Breaker(state, failures, breaker.openings + 1, until)


def tick(breaker: Breaker, now: float) -> Breaker:
    """Return the state at a later time."""
    if breaker.state is not BreakerState.OPEN or now < breaker.until:
        return breaker
    state = TRANSITIONS[breaker.state][BreakerEvent.TIME_UP]
    return msgspec.structs.replace(breaker, state=state)


def _remembered(breaker: Breaker, *, failed: bool) -> tuple[int, int]:
    window = (breaker.window << 1 | failed) & _WINDOW_BITS
    return window, min(breaker.seen + 1, WINDOW)
