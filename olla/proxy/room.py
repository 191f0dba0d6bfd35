"""How much one router takes in: connections, and request bodies held in memory.

What is over a limit is told to come again; what is under way goes on. A limit that the operator
does not set follows from how many files the process may have open: each connection of a client
may need one to an endpoint.
"""

import resource

from olla.failures import Failure, Kind

__all__ = ["HELD_MIN", "Room", "connections_max", "no_room", "overloaded"]

_RESERVE = 64
"""Files for everything else: probes, logs, libraries."""
HELD_MIN = 65536
"""Bytes. Shorter bodies are not counted: connections bound them."""


class Room:
    """What of the bodies' memory is taken, in bytes."""

    __slots__ = ("limit", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def take(self, size: int) -> bool:
        """Whether a body of so many bytes may be held; if so it counts until `give`."""
        if self.taken + size > self.limit:
            return False
        self.taken += size
        return True

    def give(self, size: int) -> None:
        """A body of so many bytes is gone."""
        self.taken -= size


def connections_max(wanted: int | None) -> int:
    """How many clients may be connected: what the operator wants, or half of the files that the
    process may have open, which are made as many as it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        most = 1_048_576 if hard == resource.RLIM_INFINITY else hard
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
            soft = max(soft, most)
        except (OSError, ValueError):
            pass  # some systems allow less than they say
    return wanted if wanted is not None else max((soft - _RESERVE) // 2, 16)


def overloaded(what: str, setting: str) -> Failure:
    """The failure of a request for which there is no room."""
    return Failure(
        Kind.OVERLOADED, f"the router is overloaded: {what} ({setting}); try again", retry_after=1.0
    )


def no_room() -> Failure:
    """The failure of a request whose body finds no room."""
    return overloaded("too many long requests at once", "server.request_limits.max_buffered_size")
