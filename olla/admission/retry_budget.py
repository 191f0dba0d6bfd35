"""How many requests may be tried again: a share of live traffic.

When everything fails, trying each request on every endpoint multiplies the load just when it can
be borne least. So a retry that costs an endpoint work spends from a balance, into which every new
request pays a share of one (as Finagle's retry budget does). What a balance may hold is enough for
all requests of a node that dies at once; an outage that lasts is multiplied by the share only.

A request that an endpoint has never seen costs nobody anything: trying another endpoint after a
connection that could not be made is free. Pure.
"""

__all__ = ["RetryBudget"]

SHARE = 0.2
"""Of live traffic that may be tried again in the long run."""
RESERVE = 100.0
"""Retries that may come at once, whatever the traffic was."""


class RetryBudget:
    """The balance. `share` is paid in with each new request; 0 allows no retry."""

    __slots__ = ("_balance", "made", "refused", "share")

    def __init__(self, share: float = SHARE) -> None:
        self.share = share
        self._balance = RESERVE
        self.made = 0
        """Retries that were paid for, or free."""
        self.refused = 0
        """Retries for which nothing was left."""

    def earn(self) -> None:
        """A new request came."""
        if self._balance < RESERVE:
            self._balance = min(self._balance + self.share, RESERVE)

    def spend(self, *, in_flight: int, free: bool) -> bool:
        """Whether a request may be tried again now; counts it.

        `in_flight` requests are with endpoints now: by so many the balance may be overdrawn, for
        they may all be with a node that dies. `free` says that no endpoint has seen this one.
        """
        if not free:
            if self.share <= 0 or self._balance + in_flight < 1:
                self.refused += 1
                return False
            self._balance -= 1
        self.made += 1
        return True
