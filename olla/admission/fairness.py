"""Whose turn it is: in order of arrival, put off by what the caller has had and already waits for.

A request's place is the time it comes plus its caller's recent seconds of service and those it
waits for already, divided by the caller's weight. A caller alone is served in order of arrival;
two that ask for more than there is share seconds, not requests; whoever asks for little passes
those who ask for much. Places are times, so nobody is put off for ever: a request goes before
everything that comes later than its place.
"""

from math import exp

__all__ = ["FairShares"]

_MEMORY = 60.0
"""Seconds over which what a caller has had is forgotten."""
_CALLERS_MAX = 10_000


class _Share:
    """One caller: seconds of service it has had lately (as of `at`), and those it waits for."""

    __slots__ = ("at", "backlog", "used")

    def __init__(self, now: float) -> None:
        self.at = now
        self.used = 0.0
        self.backlog = 0.0

    def recent(self, now: float) -> float:
        return self.used * exp(min(0.0, self.at - now) / _MEMORY)


class FairShares:
    """The callers' shares, in expected seconds of service."""

    __slots__ = ("_shares",)

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}

    def place(self, caller: str, now: float, weight: float = 1.0) -> float:
        """The place of a request of the caller's that comes now."""
        share = self._shares.get(caller)
        return now if share is None else now + (share.recent(now) + share.backlog) / weight

    def waits(self, caller: str, work: float, now: float) -> None:
        """A request of `work` seconds has been put into the queue."""
        self._share(caller, now).backlog += work

    def leaves(self, caller: str, work: float, now: float) -> None:
        """It has left the queue, served or not."""
        share = self._share(caller, now)
        share.backlog = max(0.0, share.backlog - work)

    def served(self, caller: str, work: float, now: float) -> None:
        """A request of `work` seconds begins to be worked on."""
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
        """Forget the half that has had least, but nobody who waits."""
        recent = sorted(each.recent(now) for each in self._shares.values())
        bound = recent[len(recent) // 2]
        self._shares = {
            caller: each
            for caller, each in self._shares.items()
            if each.backlog > 0 or each.recent(now) > bound
        }
