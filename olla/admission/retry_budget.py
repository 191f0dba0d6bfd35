"""Limit retries to a share of live traffic.

During an outage, retries on every endpoint multiply the load at the worst moment. So a retry that
costs an endpoint work spends from a balance, to which every new request adds a share (as in
Finagle's retry budget). The maximum balance suffices for all requests of a node that fails at once;
a lasting outage is multiplied by the share only.

A request that no endpoint has seen costs nothing: a retry after a failed connection is free. Pure.
"""

__all__ = ["RetryBudget"]

SHARE = 0.2
"""The share of live traffic that may be retried in the long run."""
RESERVE = 100.0
"""Retries that are possible at once, whatever the traffic was."""


class RetryBudget:
    """The balance. Each new request adds `share`; 0 allows no retry."""

    __slots__ = ("_balance", "made", "refused", "share")

    def __init__(self, share: float = SHARE) -> None:
        self.share = share
        self._balance = RESERVE
        self.made = 0
        """Retries that were paid for, or free."""
        self.refused = 0
        """Retries that were refused."""

    def earn(self) -> None:
        """Record a new request."""
        if self._balance < RESERVE:
            self._balance = min(self._balance + self.share, RESERVE)

    def spend(self, *, in_flight: int, free: bool) -> bool:
        """Return whether a request may be retried now, and count it.

        `in_flight` is the number of requests at endpoints: the balance may be overdrawn by it,
        because all may be at a node that fails. `free`: no endpoint has seen this request.
        """
        if not free:
            if self.share <= 0 or self._balance + in_flight < 1:
                self.refused += 1
                return False
            self._balance -= 1
        self.made += 1
        return True
