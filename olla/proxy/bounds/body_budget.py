"""Limit the memory that request bodies hold, in total and per caller.

Only bytes that have arrived are charged, in steps, not the announced length. Otherwise a few
connections that send `Content-Length: 104857600` and nothing else would lock out all other
clients. Bodies shorter than one step are bounded by the number of connections.
"""

import io

from olla.failures import Failure, Kind
from olla.proxy.bounds.connection_limit import overloaded

__all__ = ["STEP", "BodyBudget", "BodyBuffer", "BodyCharge"]

STEP = 65536
"""Bytes. Shorter bodies are not charged; longer ones are charged in multiples of it."""
_SHARE = 4
"""One caller may hold at most a quarter of the budget."""


class BodyBudget:
    """Accounts for the memory of request bodies.

    All sizes are in bytes: `taken` is charged now, `limit` may be charged in total, `share` by
    each caller.
    """

    __slots__ = ("_held", "limit", "share", "taken")

    def __init__(self, limit: int, body_max: int) -> None:
        """`body_max` is the longest body allowed: a caller's share always covers one of them."""
        self.taken = 0
        self._held: dict[str, int] = {}
        self.resize(limit, body_max)

    def resize(self, limit: int, body_max: int) -> None:
        """Set new limits. Bytes that are already charged stay charged."""
        self.limit = limit
        self.share = min(max(limit // _SHARE, body_max), limit)

    def take(self, caller: str, size: int) -> Failure | None:
        """Charge `size` bytes to a caller until `give`. Returns a failure if a limit is reached."""
        held = self._held.get(caller, 0) + size
        if held > self.share and self.share < self.limit:
            message = (
                f"this caller's request bodies already hold {self.share} bytes, its share of "
                "server.request_limits.max_buffered_size; send fewer long requests at a time"
            )
            return Failure(Kind.LIMITED, message, retry_after=1.0)
        if self.taken + size > self.limit:
            return overloaded(
                "too many long requests at once", "server.request_limits.max_buffered_size"
            )
        self.taken += size
        self._held[caller] = held
        return None

    def give(self, caller: str, size: int) -> None:
        """Release `size` bytes of a caller."""
        self.taken -= size
        held = self._held[caller] - size
        if held:
            self._held[caller] = held
        else:
            del self._held[caller]


class BodyCharge:
    """The bytes that one request's body has charged to the budget."""

    __slots__ = ("_budget", "_caller", "_held")

    def __init__(self, budget: BodyBudget, caller: str) -> None:
        """`caller` is the account that the body is charged to."""
        self._budget = budget
        self._caller = caller
        self._held = 0

    def hold(self, size: int) -> Failure | None:
        """Charge a body of which `size` bytes have arrived. Returns a failure at a limit."""
        more = size - size % STEP - self._held
        if more <= 0:
            return None
        failure = self._budget.take(self._caller, more)
        if failure is None:
            self._held += more
        return failure

    def release(self) -> None:
        """Release the whole charge. Calling it again does nothing."""
        if self._held:
            self._budget.give(self._caller, self._held)
            self._held = 0


class BodyBuffer:
    """Collects the pieces of a body without memory overhead per piece.

    The buffer grows in place. Joining the pieces of 100 MB at the end would take 60 ms and twice
    the memory, and each piece of one byte takes 40 bytes.
    """

    __slots__ = ("_first", "_more")

    def __init__(self) -> None:
        self._first = b""
        self._more: io.BytesIO | None = None

    def add(self, piece: bytes) -> None:
        """Append a piece."""
        more = self._more
        if more is not None:
            more.write(piece)
        elif not self._first:
            self._first = piece
        else:
            self._more = more = io.BytesIO()
            more.write(self._first)
            more.write(piece)
            self._first = b""

    def clear(self) -> None:
        """Discard the content."""
        self._first = b""
        self._more = None

    def take(self) -> bytes:
        """Return the content and clear the buffer."""
        more, self._more = self._more, None
        whole, self._first = self._first, b""
        return whole if more is None else more.getvalue()
