"""How much memory request bodies hold, all together and of each caller.

A body counts for what of it has arrived, in steps, and not for what its head announces: else a
few connections that say `Content-Length: 104857600` and send nothing keep everybody else out.
Bodies below the first step are bounded by the number of connections.
"""

import io

from olla.failures import Failure, Kind
from olla.proxy.bounds.connection_limit import overloaded

__all__ = ["STEP", "BodyBudget", "BodyBuffer", "BodyCharge"]

STEP = 65536
"""Bytes. Shorter bodies are not counted, longer ones in multiples of it."""
_SHARE = 4
"""A caller holds a quarter at most."""


class BodyBudget:
    """The memory for request bodies, in bytes: `taken` of `limit`, and `share` for each caller."""

    __slots__ = ("_held", "limit", "share", "taken")

    def __init__(self, limit: int, body_max: int) -> None:
        """`body_max` is the size of the longest body: a caller's share has room for one."""
        self.taken = 0
        self._held: dict[str, int] = {}
        self.resize(limit, body_max)

    def resize(self, limit: int, body_max: int) -> None:
        """Go by other limits; what is held stays held."""
        self.limit = limit
        self.share = min(max(limit // _SHARE, body_max), limit)

    def take(self, caller: str, size: int) -> Failure | None:
        """Hold so many bytes more for a caller until `give`; or why there is no room for them."""
        held = self._held.get(caller, 0) + size
        if held > self.share and self.share < self.limit:
            message = (
                f"the request bodies of this caller hold {self.share} bytes already, its share of "
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
        """So many of a caller's bytes are gone."""
        self.taken -= size
        held = self._held[caller] - size
        if held:
            self._held[caller] = held
        else:
            del self._held[caller]


class BodyCharge:
    """What one request's body holds."""

    __slots__ = ("_budget", "_caller", "_held")

    def __init__(self, budget: BodyBudget, caller: str) -> None:
        """`caller` is the account of whoever sends it."""
        self._budget = budget
        self._caller = caller
        self._held = 0

    def hold(self, size: int) -> Failure | None:
        """Hold a body of which so many bytes have arrived; or why there is no room for it."""
        more = size - size % STEP - self._held
        if more <= 0:
            return None
        failure = self._budget.take(self._caller, more)
        if failure is None:
            self._held += more
        return failure

    def release(self) -> None:
        """The body is gone. Does nothing twice."""
        if self._held:
            self._budget.give(self._caller, self._held)
            self._held = 0


class BodyBuffer:
    """A body that arrives in pieces. They take no more memory than their bytes.

    It grows where it is: to join the pieces of 100 MB at the end takes 60 ms, and as much memory
    again; each piece of one byte takes forty.
    """

    __slots__ = ("_first", "_more")

    def __init__(self) -> None:
        self._first = b""
        self._more: io.BytesIO | None = None

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
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
        """Forget what has come."""
        self._first = b""
        self._more = None

    def take(self) -> bytes:
        """All that has come, which is forgotten here."""
        more, self._more = self._more, None
        whole, self._first = self._first, b""
        return whole if more is None else more.getvalue()
