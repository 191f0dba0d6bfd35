"""How many requests an endpoint works on at a time for one loaded model.

Told by the operator, or found out as adaptive concurrency limits do (TCP Vegas; Netflix's
concurrency-limits): let one more in than is known to fit, look whether it had to wait, and raise
or lower the limit by what was seen. A request had to wait when its first byte came only after
another one's last. The one that is let in would have been the next on that line anyway, so trying
costs next to nothing.
"""

__all__ = ["Slots"]

_RETRY_FIRST = 15.0
_RETRY_MAX = 600.0
"""Seconds until the next try after one that had to wait, doubling from the first to the last."""
_LIMIT_MAX = 1024
_STEP = 4
_DOUBTS = 2
"""How many requests in a row have to wait within the limit before it is lowered."""


class Slots:
    """The limit of one line. `first` is where learning begins when nothing was told."""

    __slots__ = ("_doubts", "_retry", "_try_at", "limit", "told")

    def __init__(self, told: int | None, first: int = 1) -> None:
        self.told = told is not None
        self.limit = first if told is None else told
        self._retry = _RETRY_FIRST
        self._try_at = 0.0
        self._doubts = 0

    def may_try(self, in_flight: int, now: float) -> bool:
        """Whether one more than fits may be sent, to see whether it does: one at a time where few
        fit, up to a quarter more where many do, so that a large server is filled soon."""
        return (
            not self.told
            and self.limit <= in_flight < self.limit + max(1, self.limit // _STEP)
            and now >= self._try_at
            and self.limit < _LIMIT_MAX
        )

    def trying(self, in_flight: int, now: float) -> None:
        """One more than fits was sent, while so many were in flight."""
        if in_flight + 1 >= self.limit + max(1, self.limit // _STEP):
            self._try_at = now + self._retry

    def saw(self, crowd: int, now: float, *, waited: bool) -> None:
        """A request that found `crowd` others on its line did or did not have to wait for them."""
        if self.told or crowd == 0:
            return
        if crowd >= self.limit:
            if waited:
                self._retry = min(self._retry * 2, _RETRY_MAX)
                self._try_at = now + self._retry
            else:
                self.limit = min(max(self.limit, crowd + 1), _LIMIT_MAX)
                self._retry = _RETRY_FIRST
                self._try_at = now
            return
        self._doubts = self._doubts + 1 if waited else 0
        if self._doubts >= _DOUBTS:
            self._doubts = 0
            self.limit = max(1, crowd)
            self._try_at = now + self._retry
