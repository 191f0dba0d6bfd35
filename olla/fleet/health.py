"""What probes say of an endpoint: a table of transitions, and when to ask again.

Pure. Traffic's own judgement is the breaker's; here traffic only reports what no probe needs to
confirm: that a connection could not be made, that a pause was asked for, that an answer came.
"""

import enum
from collections.abc import Mapping

import msgspec

__all__ = ["TRANSITIONS", "Health", "HealthEvent", "HealthState", "advance", "next_interval"]

SUSPICION_LIMIT = 3
"""So many time-outs in a row make an endpoint unhealthy; fewer are a suspicion, because a node that
loads a model, or whose machine is busy, answers late."""
_SUSPICION_INTERVAL = 1.0
"""Seconds between probes of a routable endpoint that is under suspicion, at most: it gets requests
meanwhile, so the question has to be settled."""
_BACKOFF_MAX = 60.0
"""Seconds between probes of an endpoint that answers, but not well."""
_GONE_BACKOFF_MAX = 5.0
"""Seconds between probes of one that does not answer at all, at most, whatever its interval: such
a probe costs nothing, and a node that was restarted is wanted back soon."""
_PAUSE_DEFAULT = 30.0
"""Seconds to leave an endpoint alone that says 429 without a Retry-After."""
_PAUSE_MAX = 300.0
"""Seconds it is left alone at most: nobody else would bring it back."""
_JITTER = 0.1


class Health(enum.Enum):
    """The state of an endpoint as far as probes know it."""

    UNKNOWN = "unknown"
    """Not asked yet."""
    HEALTHY = "healthy"
    BUSY = "busy"
    """Alive, but slow to say so or to tell what it has: it may be loading a model."""
    WARMING = "warming"
    """Alive, and says that it is loading its only model."""
    UNHEALTHY = "unhealthy"
    """Answers with errors or rubbish, or too late."""
    OFFLINE = "offline"
    """No connection can be made."""
    CONFIG_ERROR = "config-error"
    """Refuses olla's credentials: the operator has to act."""
    RATE_LIMITED = "rate-limited"
    """Wants to be left alone for a while."""

    @property
    def routable(self) -> bool:
        """Whether requests may be sent to an endpoint in this state."""
        return self in _ROUTABLE


_ROUTABLE = frozenset({Health.HEALTHY, Health.BUSY})


class HealthEvent(enum.Enum):
    """What was learnt."""

    OK = "ok"
    """Everything was answered."""
    SLOW = "slow"
    """It lives, but what it has was not told in time."""
    LOADING = "loading"
    """503 while it loads its model."""
    TIMEOUT = "timeout"
    """Not even the sign of life came in time."""
    UNREACHABLE = "unreachable"
    """No connection, whoever tried."""
    BROKEN = "broken"
    """A server error, or an answer that cannot be read."""
    UNAUTHORIZED = "unauthorized"
    """401 or 403."""
    RATE_LIMITED = "rate_limited"
    """429."""
    ANSWERED = "answered"
    """A request was answered."""


_H, _E = Health, HealthEvent

_AFTER: Mapping[HealthEvent, Health] = {
    _E.OK: _H.HEALTHY,
    _E.SLOW: _H.BUSY,
    _E.LOADING: _H.WARMING,
    _E.TIMEOUT: _H.UNHEALTHY,
    _E.UNREACHABLE: _H.OFFLINE,
    _E.BROKEN: _H.UNHEALTHY,
    _E.UNAUTHORIZED: _H.CONFIG_ERROR,
    _E.RATE_LIMITED: _H.RATE_LIMITED,
}
"""Where what a probe found leads from most states. An answer to a request leads nowhere from most:
it may be the rest of what was begun before the trouble."""

TRANSITIONS: Mapping[Health, Mapping[HealthEvent, Health]] = {
    _H.UNKNOWN: {**_AFTER, _E.ANSWERED: _H.UNKNOWN},
    # One late answer is a suspicion: see SUSPICION_LIMIT.
    _H.HEALTHY: {**_AFTER, _E.TIMEOUT: _H.BUSY, _E.ANSWERED: _H.HEALTHY},
    _H.BUSY: {**_AFTER, _E.TIMEOUT: _H.BUSY, _E.ANSWERED: _H.HEALTHY},
    # A server that loads its model may not answer at all meanwhile.
    _H.WARMING: {**_AFTER, _E.TIMEOUT: _H.WARMING, _E.ANSWERED: _H.WARMING},
    _H.UNHEALTHY: {**_AFTER, _E.ANSWERED: _H.UNHEALTHY},
    # Slow right after having been gone is no proof that it can work: one more answer has to come.
    _H.OFFLINE: {**_AFTER, _E.SLOW: _H.UNHEALTHY, _E.ANSWERED: _H.OFFLINE},
    _H.CONFIG_ERROR: {**_AFTER, _E.ANSWERED: _H.CONFIG_ERROR},
    # Before the pause is over, OK and SLOW do not end it: see `advance`.
    _H.RATE_LIMITED: {**_AFTER, _E.ANSWERED: _H.RATE_LIMITED},
}
"""State -> event -> state. Two things need more than the last state and are in `advance`: the
third time-out in a row, and the pause of a rate-limited endpoint."""

_ALIVE = frozenset({_E.OK, _E.SLOW, _E.LOADING})
"""Events that are no failure."""


class HealthState(msgspec.Struct, frozen=True):
    """An endpoint's health with its history.

    `failures` counts probes and connections in a row that failed, `timeouts` time-outs in a row;
    `since` and `retry_at` (when the pause that a 429 asked for is over) are monotonic seconds.
    """

    health: Health = Health.UNKNOWN
    failures: int = 0
    timeouts: int = 0
    since: float = 0.0
    retry_at: float | None = None


def advance(
    state: HealthState, event: HealthEvent, now: float, retry_after: float | None = None
) -> HealthState:
    """The state after an event. `retry_after` is what a 429 asked for, in seconds."""
    if event is HealthEvent.ANSWERED:
        return _answered(state, now)
    paused = state.retry_at is not None and now < state.retry_at
    if paused and event in (HealthEvent.OK, HealthEvent.SLOW):
        # A list that is answered says nothing about the path that was limited.
        return state
    health = TRANSITIONS[state.health][event]
    timeouts = state.timeouts + 1 if event is HealthEvent.TIMEOUT else 0
    if timeouts >= SUSPICION_LIMIT:
        health = Health.UNHEALTHY
    retry_at = None
    if event is HealthEvent.RATE_LIMITED:
        pause = _PAUSE_DEFAULT if retry_after is None else retry_after
        retry_at = now + min(max(pause, 0.0), _PAUSE_MAX)
    return HealthState(
        health=health,
        failures=0 if event in _ALIVE else state.failures + 1,
        timeouts=timeouts,
        since=state.since if health is state.health else now,
        retry_at=retry_at,
    )


def _answered(state: HealthState, now: float) -> HealthState:
    """A request was answered: whoever does that is not dead, however late the probes are."""
    if not state.health.routable or state.health is Health.HEALTHY:
        return state
    health = TRANSITIONS[state.health][HealthEvent.ANSWERED]
    return HealthState(health=health, since=state.since if health is state.health else now)


def next_interval(interval: float, state: HealthState, now: float, draw: float) -> float:
    """Seconds until the next probe.

    `interval` while all is well; after failures in a row 1, 2, 4, 8 … times that, up to 60 s, and
    up to 5 s where nobody answers; at most 1 s while a routable endpoint is under
    suspicion; not before a rate-limited endpoint wants to be asked. Jitter of ten per cent each
    way (a pause only gets longer by it) keeps many routers from asking in step; `draw` in [0, 1)
    is the chance it is made of.
    """
    if state.retry_at is not None:
        return max(state.retry_at - now, interval) * (1 + _JITTER * draw)
    jitter = 1 + _JITTER * (2 * draw - 1)
    if state.timeouts and state.health.routable:
        return min(interval, _SUSPICION_INTERVAL) * jitter
    grown = interval * 2.0 ** min(max(state.failures - 1, 0), 10)
    if state.health is Health.OFFLINE or state.timeouts:
        return min(grown, _GONE_BACKOFF_MAX) * jitter
    return min(grown, max(_BACKOFF_MAX, interval)) * jitter
