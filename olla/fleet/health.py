"""Derive an endpoint's health from probes: a table of transitions, and when to probe again.

Pure. The breaker judges the outcomes of requests. Here requests only report what needs no probe: a
failed connection, a requested pause, a response.
"""

import enum
from collections.abc import Mapping

import msgspec

__all__ = ["TRANSITIONS", "Health", "HealthEvent", "HealthState", "advance", "next_interval"]

SUSPICION_LIMIT = 3
"""Consecutive time-outs that make an endpoint unhealthy. Fewer only raise suspicion, because a node
that loads a model, or whose machine is busy, responds late."""
_SUSPICION_INTERVAL = 1.0
"""Maximum seconds between probes of a routable endpoint under suspicion: it gets requests in the
meantime, so the suspicion must be resolved soon."""
_BACKOFF_MAX = 60.0
"""Seconds between probes of an endpoint that responds, but not properly."""
_GONE_BACKOFF_MAX = 5.0
"""Maximum seconds between probes of an unreachable endpoint, at any interval: such a probe costs
nothing, and a restarted node should be used again soon."""
_PAUSE_DEFAULT = 30.0
"""Seconds to leave an endpoint alone that says 429 without a Retry-After."""
_PAUSE_MAX = 300.0
"""Maximum seconds that it is left alone: only a probe brings it back."""
_JITTER = 0.1


class Health(enum.Enum):
    """The state of an endpoint according to probes."""

    UNKNOWN = "unknown"
    """Not probed yet."""
    HEALTHY = "healthy"
    BUSY = "busy"
    """Alive, but slow to confirm it or to list its models: it may be loading one."""
    WARMING = "warming"
    """Alive, and reports that it is loading its only model."""
    UNHEALTHY = "unhealthy"
    """Sends errors or invalid responses, or is too late."""
    OFFLINE = "offline"
    """No connection is possible."""
    CONFIG_ERROR = "config-error"
    """Rejects olla's credentials: the operator must act."""
    RATE_LIMITED = "rate-limited"
    """Has asked for a pause."""

    @property
    def routable(self) -> bool:
        """Whether requests may be sent to an endpoint in this state."""
        return self in _ROUTABLE


_ROUTABLE = frozenset({Health.HEALTHY, Health.BUSY})


class HealthEvent(enum.Enum):
    """An observation."""

    OK = "ok"
    """Every probe succeeded."""
    SLOW = "slow"
    """It is alive, but did not list its models in time."""
    LOADING = "loading"
    """503 while it loads its model."""
    TIMEOUT = "timeout"
    """The check for life timed out."""
    UNREACHABLE = "unreachable"
    """A probe or request could not connect."""
    BROKEN = "broken"
    """A server error, or a response that cannot be parsed."""
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
"""The next state for the findings of probes in most states. A response to a request changes most
states not at all: it may belong to a request from before the failure."""

TRANSITIONS: Mapping[Health, Mapping[HealthEvent, Health]] = {
    _H.UNKNOWN: {**_AFTER, _E.ANSWERED: _H.UNKNOWN},
    # One time-out only raises suspicion: see SUSPICION_LIMIT.
    _H.HEALTHY: {**_AFTER, _E.TIMEOUT: _H.BUSY, _E.ANSWERED: _H.HEALTHY},
    _H.BUSY: {**_AFTER, _E.TIMEOUT: _H.BUSY, _E.ANSWERED: _H.HEALTHY},
    # A server that loads its model may not respond at all.
    _H.WARMING: {**_AFTER, _E.TIMEOUT: _H.WARMING, _E.ANSWERED: _H.WARMING},
    _H.UNHEALTHY: {**_AFTER, _E.ANSWERED: _H.UNHEALTHY},
    # A slow response right after a failure does not prove that it works: one more is needed.
    _H.OFFLINE: {**_AFTER, _E.SLOW: _H.UNHEALTHY, _E.ANSWERED: _H.OFFLINE},
    _H.CONFIG_ERROR: {**_AFTER, _E.ANSWERED: _H.CONFIG_ERROR},
    # OK and SLOW do not end a pause before its time: see `advance`.
    _H.RATE_LIMITED: {**_AFTER, _E.ANSWERED: _H.RATE_LIMITED},
}
"""State -> event -> state. Two rules need more than the last state and are in `advance`: the third
consecutive time-out, and the pause of a rate-limited endpoint."""

_ALIVE = frozenset({_E.OK, _E.SLOW, _E.LOADING})
"""Events that are not failures."""


class HealthState(msgspec.Struct, frozen=True):
    """An endpoint's health with its history.

    `failures` counts consecutive failed probes and connections, `timeouts` consecutive time-outs.
    `since` and `retry_at` (the end of the pause that a 429 asked for) are monotonic seconds.
    """

    health: Health = Health.UNKNOWN
    failures: int = 0
    timeouts: int = 0
    since: float = 0.0
    retry_at: float | None = None


def advance(
    state: HealthState, event: HealthEvent, now: float, retry_after: float | None = None
) -> HealthState:
    """Return the state after an event. `retry_after` is the pause of a 429, in seconds."""
    if event is HealthEvent.ANSWERED:
        return _answered(state, now)
    paused = state.retry_at is not None and now < state.retry_at
    if paused and event in (HealthEvent.OK, HealthEvent.SLOW):
        # A successful list says nothing about the path that was limited.
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
    """Return the state after a response to a request, which proves that the endpoint is alive."""
    if not state.health.routable or state.health is Health.HEALTHY:
        return state
    health = TRANSITIONS[state.health][HealthEvent.ANSWERED]
    return HealthState(health=health, since=state.since if health is state.health else now)


def next_interval(interval: float, state: HealthState, now: float, draw: float) -> float:
    """Return the seconds until the next probe.

    This is `interval` for a healthy endpoint. After consecutive failures it is 1, 2, 4, 8 … times
    that, up to 60 s, or up to 5 s if the endpoint is unreachable. It is at most 1 s for a routable
    endpoint under suspicion, and never before the end of a requested pause. A jitter of ±10 % keeps
    routers from probing in step (it only lengthens pauses); `draw` in [0, 1) is its random number.
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
