"""Estimate how many concurrent requests an endpoint serves for one loaded model.

The operator sets the number, or it is learned as adaptive concurrency limits do (TCP Vegas;
Netflix's concurrency-limits): send one more than is known to fit, observe whether it waited, and
raise or lower the limit. A request waited if its first byte came only after the last byte of
another one. The extra request would have been the next at that instance anyway, so a try costs next
to nothing.
"""

__all__ = ["Slots"]

_RETRY_FIRST = 15.0
_RETRY_MAX = 600.0
"""Seconds until the next try after one that waited, doubling from the first to the last."""
_LIMIT_MAX = 1024
_STEP = 4
_DOUBTS = 2
"""Consecutive requests that must wait within the limit before it is lowered."""


class Slots:
    """The limit of one model instance. `first` is the start value if the operator set none."""

    __slots__ = ("_doubts", "_retry", "_try_at", "limit", "told")

    def __init__(self, told: int | None, first: int = 1) -> None:
        self.told = told is not None
        self.limit = first if told is None else told
        self._retry = _RETRY_FIRST
        self._try_at = 0.0
        self._doubts = 0

    def may_try(self, in_flight: int, now: float) -> bool:
        """Whether one more request than fits may be sent as a try: one at a time at small limits,
        up to a quarter more at large ones, so that a large server is filled soon."""
        return (
            not self.told
            and self.limit <= in_flight < self.limit + max(1, self.limit // _STEP)
            and now >= self._try_at
            and self.limit < _LIMIT_MAX
        )

    def trying(self, in_flight: int, now: float) -> None:
        """Record a try with this many requests in flight."""
        if in_flight + 1 >= self.limit + max(1, self.limit // _STEP):
            self._try_at = now + self._retry

    def saw(self, crowd: int, now: float, *, waited: bool) -> None:
        """Learn whether a request that found `crowd` others at its instance waited for them."""
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
