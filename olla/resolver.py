"""Looks up host names, so that a name server which does not answer costs one thread a name.

The event loop's own look-ups share a few threads, four with uvloop. One endpoint whose name server
is silent fills them with its probes and retries, and no other endpoint that has a name can be
connected to. Here a name is looked up once at a time, however many want to know, in a daemon
thread. What is found is not kept: names of services move.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from olla.tasks import in_thread

__all__ = ["ResolvedAddress", "Resolver"]

_LOOKUPS_MAX = 64


class ResolvedAddress(NamedTuple):
    """An IP address: `family` is `socket.AF_INET` or `socket.AF_INET6`."""

    family: int
    host: str


Lookup = Callable[..., Sequence[tuple[Any, ...]]]
"""`socket.getaddrinfo`."""


class Resolver:
    """Looks up names for one loop. At most `lookups_max` names at a time: more are not resolved."""

    def __init__(self, lookup: Lookup | None = None, *, lookups_max: int = _LOOKUPS_MAX) -> None:
        """`lookup` is the system's where none is given."""
        self._lookup: Lookup = lookup or socket.getaddrinfo
        self._lookups_max = lookups_max
        self._under_way: dict[str, asyncio.Future[list[ResolvedAddress]]] = {}

    async def addresses(self, host: str) -> list[ResolvedAddress]:
        """The addresses of a host, which may be one itself, in the system's order; at least one.

        Raises:
            socket.gaierror: it has none, or too many look-ups are under way.
        """
        literal = _literal(host)
        if literal is not None:
            return [literal]
        found = self._under_way.get(host)
        if found is None:
            if len(self._under_way) >= self._lookups_max:
                raise socket.gaierror(
                    socket.EAI_AGAIN, "too many names are being looked up; are the servers there?"
                )
            found = self._under_way[host] = in_thread(_looked_up, self._lookup, host)
            found.add_done_callback(lambda _: self._under_way.pop(host, None))
        # Whoever stops waiting must not take the answer from the others.
        return await asyncio.shield(found)


def _looked_up(lookup: Lookup, host: str) -> list[ResolvedAddress]:
    """Blocks."""
    try:
        rows = lookup(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label that is too long, or none
        raise socket.gaierror(socket.EAI_NONAME, "it is not a host name") from None
    found = [ResolvedAddress(int(family), str(sockaddr[0])) for family, _, _, _, sockaddr in rows]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "it has no address")
    return list(dict.fromkeys(found))


def _literal(host: str) -> ResolvedAddress | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return ResolvedAddress(int(family), host)
    return None
