"""What probes say of an endpoint: a table of transitions, and when to ask again.

Pure. Traffic's own judgement is the breaker's; here traffic only reports what no probe needs to
confirm: that a connection could not be made.
"""

import enum
from collections.abc import Mapping

import msgspec

__all__ = ["TRANSITIONS", "Event", "Health", "HealthState", "advance", "next_interval"]

SUSPICION_LIMIT = 3
"""So many probes in a row may time out before a routable endpoint is taken for unhealthy: a node
that loads a model, or whose machine is busy, answers late."""

_BACKOFF_MAX = 60.0
"""Seconds between probes of an endpoint that answers, but not well."""
_GONE_BACKOFF_MAX = 5.0
"""Seconds between probes of one that does not answer at all: the probe costs nothing, and a node
that was restarted is wanted back soon."""
_RATE_LIMIT_DEFAULT = 30.0
"""Seconds to leave an endpoint alone that says 429 without a Retry-After."""
_JITTER = 0.1


class Health(enum.Enum):
    """The state of an endpoint as far as probes know it."""

    UNKNOWN = "unknown"
    """Not asked yet."""
    HEALTHY = "healthy"
    BUSY = "busy"
    """Alive, but slow to tell what it has in memory: it may be loading a model."""
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


class Event(enum.Enum):
    """What was learnt."""

    OK = "ok"
    """Everything was answered."""
    SLOW = "slow"
    """It lives, but what it has in memory was not told in time."""
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


_H, _E = Health, Event

_AFTER: dict[Event, Health] = {
    _E.OK: _H.HEALTHY,
    _E.SLOW: _H.BUSY,
    _E.LOADING: _H.WARMING,
    _E.TIMEOUT: _H.UNHEALTHY,
    _E.UNREACHABLE: _H.OFFLINE,
    _E.BROKEN: _H.UNHEALTHY,
    _E.UNAUTHORIZED: _H.CONFIG_ERROR,
    _E.RATE_LIMITED: _H.RATE_LIMITED,
}
"""Where an event leads from most states."""

TRANSITIONS: Mapping[Health, Mapping[Event, Health]] = {
    _H.UNKNOWN: _AFTER,
    # One late answer is a suspicion: see SUSPICION_LIMIT.
    _H.HEALTHY: {**_AFTER, _E.TIMEOUT: _H.BUSY},
    _H.BUSY: {**_AFTER, _E.TIMEOUT: _H.BUSY},
    # A server that loads its model may not answer at all meanwhile.
    _H.WARMING: {**_AFTER, _E.TIMEOUT: _H.WARMING},
    _H.UNHEALTHY: _AFTER,
    # Slow after having been gone is no proof that it can work: wait for a full answer.
    _H.OFFLINE: {**_AFTER, _E.SLOW: _H.UNHEALTHY},
    _H.CONFIG_ERROR: _AFTER,
    _H.RATE_LIMITED: {**_AFTER, _E.TIMEOUT: _H.UNHEALTHY},
}
"""State -> event -> state."""


class HealthState(msgspec.Struct, frozen=True):
    """An endpoint's health with its history.

    `failures` counts events in a row that were not `OK` or `SLOW`; `timeouts` time-outs in a row;
    `since` and `retry_at` are monotonic seconds.
    """

    health: Health = Health.UNKNOWN
    failures: int = 0
    timeouts: int = 0
    since: float = 0.0
    retry_at: float | None = None


def advance(
    state: HealthState, event: Event, now: float, retry_after: float | None = None
) -> HealthState:
    """The state after an event. `retry_after` is what a 429 asked for, in seconds."""
    health = TRANSITIONS[state.health][event]
    timeouts = state.timeouts + 1 if event is Event.TIMEOUT else 0
    if timeouts >= SUSPICION_LIMIT:
        health = Health.UNHEALTHY
    well = event in (Event.OK, Event.SLOW)
    retry_at = None
    if event is Event.RATE_LIMITED:
        retry_at = now + (_RATE_LIMIT_DEFAULT if retry_after is None else retry_after)
    return HealthState(
        health=health,
        failures=0 if well else state.failures + 1,
        timeouts=timeouts,
        since=state.since if health is state.health else now,
        retry_at=retry_at,
    )


def next_interval(interval: float, state: HealthState, now: float, draw: float) -> float:
    """Seconds until the next probe.

    `interval` while all is well, doubled with each failure up to a bound, and not before a
    rate-limited endpoint wants to be asked. Jitter of ten per cent each way keeps many routers
    from asking in step; `draw` in [0, 1) is the chance it is made of.
    """
    jitter = 1 + _JITTER * (2 * draw - 1)
    if state.retry_at is not None:
        return max(state.retry_at - now, interval) * (1 + _JITTER * draw)
    bound = _GONE_BACKOFF_MAX if state.health is Health.OFFLINE else _BACKOFF_MAX
    doubled = interval * 2.0 ** min(max(state.failures - 1, 0), 10)
    return min(doubled, max(bound, interval)) * jitter
