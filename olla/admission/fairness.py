"""Order queued requests fairly: by arrival, delayed by the caller's recent service and queue.

The place of a request is its arrival time plus its caller's recent and queued seconds of service,
divided by the caller's weight. The requests of a single caller are served in order of arrival.
Callers that exceed the capacity share seconds instead of requests. A caller with few requests
overtakes callers with many. Places are times, so no request starves: it precedes everything that
arrives later than its place.
"""

from math import exp

__all__ = ["FairShares"]

_MEMORY = 60.0
"""Seconds over which a caller's service is forgotten."""
_CALLERS_MAX = 10_000


class _Share:
    """One caller: recent seconds of service (as of `at`), and seconds in the queue."""

    __slots__ = ("at", "backlog", "used")

    def __init__(self, now: float) -> None:
        self.at = now
        self.used = 0.0
        self.backlog = 0.0

    def recent(self, now: float) -> float:
        return self.used * exp(min(0.0, self.at - now) / _MEMORY)


class FairShares:
    """The shares of all callers, in expected seconds of service."""

    __slots__ = ("_shares",)

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}

    def place(self, caller: str, now: float, weight: float = 1.0) -> float:
        """Return the place of a caller's request that arrives now."""
        share = self._shares.get(caller)
        return now if share is None else now + (share.recent(now) + share.backlog) / weight

    def waits(self, caller: str, work: float, now: float) -> None:
        """Record that a request of `work` seconds was queued."""
        self._share(caller, now).backlog += work

    def leaves(self, caller: str, work: float, now: float) -> None:
        """Record that it left the queue, served or not."""
        share = self._share(caller, now)
        share.backlog = max(0.0, share.backlog - work)

    def served(self, caller: str, work: float, now: float) -> None:
        """Record that a request of `work` seconds has started."""
        share = self._share(caller, now)
        share.used = share.recent(now) + work
        share.at = now

    def _share(self, caller: str, now: float) -> _Share:
        share = self._shares.get(caller)
        if share is None:
            if len(self._shares) >= _CALLERS_MAX:
                self._forget(now)
            share = self._shares[caller] = _Share(now)
        return share

    def _forget(self, now: float) -> None:
        """Forget the half with the least service, but no caller with queued requests."""
        recent = sorted(each.recent(now) for each in self._shares.values())
        bound = recent[len(recent) // 2]
        self._shares = {
            caller: each
            for caller, each in self._shares.items()
            if each.backlog > 0 or each.recent(now) > bound
        }
