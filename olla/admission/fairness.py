"""Whose turn it is: start-time fair queueing over expected service seconds.

Every request gets a place in virtual time: where its caller's last one ended, but not before now.
Serving the lowest place first shares the fleet's seconds between callers in proportion to their
weights, whatever they ask for at once (Goyal, Vin and Cheng, SIGCOMM 1996). A caller alone is
served in order of arrival.
"""

__all__ = ["FairShares"]

_CALLERS_MAX = 10_000


class FairShares:
    """The callers' places in virtual time, in seconds of service."""

    __slots__ = ("_ends", "_now")

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: dict[str, float] = {}

    def place(self, caller: str, work: float, weight: float = 1.0) -> float:
        """A place for the caller's next request, which is expected to take `work` seconds."""
        start = max(self._now, self._ends.get(caller, 0.0))
        self._ends[caller] = start + work / weight
        if len(self._ends) > _CALLERS_MAX:
            self._forget()
        return start

    def _forget(self) -> None:
        """Forget the half of the callers that had least: virtual time moves on past them."""
        ends = sorted(self._ends.values())
        self._now = max(self._now, ends[len(ends) // 2])
        self._ends = {each: end for each, end in self._ends.items() if end > self._now}

    def served(self, place: float) -> None:
        """The request at that place has begun: virtual time has come as far."""
        self._now = max(self._now, place)
