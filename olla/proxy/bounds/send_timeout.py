"""Close the connection of a client that does not read its response.

Unread bytes fill the kernel's buffer, then the transport's, and then block the endpoint, so the
request would hold its slot for as long as the client likes. `server.send_timeout` limits that.
This module does not know what is being sent.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.bounds.timer_wheel import TimerWheel

__all__ = ["SendTimeout"]

_SOON: Final = 0.001
"""Seconds. A shorter remaining time counts as expired."""


class SendTimeout:
    """Times out a client while bytes written to it are unread. A `Watched`."""

    __slots__ = ("_deadlines", "_limits", "_loop", "_stalled", "_transport", "_unsent", "slot")

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        limits: ClientTimeouts,
        deadlines: TimerWheel,
        loop: asyncio.AbstractEventLoop,
        stalled: Callable[[asyncio.WriteTransport], None],
    ) -> None:
        """Start timing, because the kernel's buffer is full.

        `stalled` is called when the client reads below the minimum rate for too long, unless
        `stop` is called first. It gets the transport, because aiohttp drops its own reference to a
        transport that it has closed.
        """
        self._transport = transport
        self._limits = limits
        self._deadlines = deadlines
        self._loop = loop
        self._stalled = stalled
        self._unsent = transport.get_write_buffer_size()
        self.slot = 0.0
        deadlines.watch(self, loop.time() + limits.send)

    def stop(self) -> None:
        """Stop timing: the client has read everything or disconnected."""
        self._deadlines.forget(self)

    def due(self) -> None:
        """Time the client out, or extend its time if it has read enough in between."""
        unsent = self._transport.get_write_buffer_size()
        left = self._limits.send_left(0.0, max(self._unsent - unsent, 0))
        self._unsent = unsent
        if left > _SOON:
            self._deadlines.watch(self, self._loop.time() + left)
        else:
            self._stalled(self._transport)
