"""What traffic says of an endpoint: a circuit breaker over the outcomes of attempts.

Closed lets requests through. Failures in a row open it, and so does a share of failures among the
latest outcomes, which catches an endpoint that fails every other request. Open keeps requests away
for a time that doubles with each opening; then one trial at a time goes through (half-open), and
its outcome decides. Whoever comes back starts slowly: two requests at a time, and twice as many
after each success, until the bound is gone, so that a node that has just started is not overrun.

Pure. Whoever feeds it leaves out what says nothing of the endpoint: clients that hang up. That
there is one trial at a time is routing's doing, which knows what is in flight; a trial whose
client hangs up is therefore simply followed by the next one.
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
"""Failures in a row."""
WINDOW = 20
"""So many outcomes are remembered for the share of failures."""
WINDOW_MIN = 10
"""Below so many outcomes a share says nothing."""
SHARE_TO_OPEN = 0.5
OPEN_SECONDS_FIRST = 1.0
OPEN_SECONDS_MAX = 30.0
_RAMP_FIRST = 2
_RAMP_MAX = 32
"""Requests at a time that an endpoint which comes back may take at first, and the bound from
which on there is none."""
_JITTER = 0.1
_WINDOW_BITS = (1 << WINDOW) - 1


class BreakerState(enum.Enum):
    """Whether recent requests to an endpoint went well."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    """One trial at a time."""


_CLOSED: Final = BreakerState.CLOSED


class BreakerEvent(enum.Enum):
    """What happened."""

    SUCCESS = "success"
    FAILURE = "failure"
    """One that can still be borne."""
    TRIP = "trip"
    """A failure too many, in a row or as a share."""
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
    # What ends while it is open began before, and is old news either way.
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

    `failures` in a row; `openings` without a success of a trial between them; `until`: when an
    open one becomes half-open, in monotonic seconds; `window`: the latest outcomes while closed,
    one bit each, set for a failure, the newest lowest, and `seen` of them count; `ramp`: how many
    requests at a time one that comes back may take, 0 for any number.
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
"""Closed, and nothing but successes as far back as is remembered."""


def succeed(breaker: Breaker) -> Breaker:
    """After an attempt that went well."""
    if breaker.state is _CLOSED:
        if breaker == _SPOTLESS:  # nearly always, and this is done for each request
            return breaker
        window, seen = _remembered(breaker, failed=False)
        ramp = breaker.ramp * 2 if breaker.ramp * 2 < _RAMP_MAX else 0
        return Breaker(window=window, seen=seen, ramp=ramp)
    state = TRANSITIONS[breaker.state][BreakerEvent.SUCCESS]
    return _BACK if state is _CLOSED else breaker


def come_back(breaker: Breaker) -> Breaker:
    """After probes have found an endpoint fit for requests again."""
    if breaker.state is not _CLOSED:
        return breaker  # traffic decides
    return _BACK


def fail(breaker: Breaker, now: float, draw: float) -> Breaker:
    """After an attempt that failed through the endpoint's fault.

    `draw` in [0, 1) is the chance that the jitter of ten per cent each way is made of: several
    routers should not send their trials at one moment.
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
    """After time has passed."""
    if breaker.state is not BreakerState.OPEN or now < breaker.until:
        return breaker
    state = TRANSITIONS[breaker.state][BreakerEvent.TIME_UP]
    return msgspec.structs.replace(breaker, state=state)


def _remembered(breaker: Breaker, *, failed: bool) -> tuple[int, int]:
    window = (breaker.window << 1 | failed) & _WINDOW_BITS
    return window, min(breaker.seen + 1, WINDOW)
