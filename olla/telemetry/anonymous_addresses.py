"""Count the addresses that recently sent requests without a key."""

from olla.access.caller import ANONYMOUS
from olla.clock import Clock
from olla.record import RequestRecord

__all__ = ["Addresses"]


class Addresses:
    """A sink. Remembers up to `most` addresses (one per /64 network of IPv6) that sent a request
    without a key within `window` seconds."""

    def __init__(self, clock: Clock, *, window: float = 60.0, most: int = 10_000) -> None:
        self._clock = clock
        self._window = window
        self._most = most
        self._seen: dict[str, float] = {}
        """When each was last seen, the latest at the end."""

    def __call__(self, record: RequestRecord) -> None:
        """Take a finished request."""
        if record.tier != ANONYMOUS or record.key_name or not record.caller:
            return
        seen, caller = self._seen, record.caller
        seen.pop(caller, None)
        seen[caller] = record.ended
        if len(seen) > self._most:
            del seen[next(iter(seen))]

    def active(self) -> int:
        """Return the number of addresses."""
        since = self._clock.now() - self._window
        active = 0
        for at in reversed(self._seen.values()):
            if at < since:
                break
            active += 1
        return active
