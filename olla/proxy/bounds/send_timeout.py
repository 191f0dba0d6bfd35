"""Ends the connection of a client that does not read.

What a client does not take stays in the kernel's buffer, then in the transport's, and then its
endpoint has to wait: the request would hold its slot for as long as the client likes.
`server.send_timeout` bounds that. Does not know what is sent.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.bounds.timer_wheel import TimerWheel

__all__ = ["SendTimeout"]

_SOON: Final = 0.001
"""Seconds. Less is nothing."""


class SendTimeout:
    """Waits until a client has taken what was written to it. See `Watched`."""

    __slots__ = ("_deadlines", "_limits", "_loop", "_stalled", "_transport", "_unsent", "slot")

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        limits: ClientTimeouts,
        deadlines: TimerWheel,
        loop: asyncio.AbstractEventLoop,
        stalled: Callable[[asyncio.WriteTransport], None],
    ) -> None:
        """Begin to wait, because the kernel has taken no more. `stalled` is called when the client
        reads too little for too long, unless `stop` was called before. (The transport is kept
        here because aiohttp forgets one that it has told to close.)"""
        self._transport = transport
        self._limits = limits
        self._deadlines = deadlines
        self._loop = loop
        self._stalled = stalled
        self._unsent = transport.get_write_buffer_size()
        self.slot = 0.0
        deadlines.watch(self, loop.time() + limits.send)

    def stop(self) -> None:
        """The client has read everything, or is gone."""
        self._deadlines.forget(self)

    def due(self) -> None:
        """The time is over, unless the client has read enough meanwhile."""
        unsent = self._transport.get_write_buffer_size()
        left = self._limits.send_left(0.0, max(self._unsent - unsent, 0))
        self._unsent = unsent
        if left > _SOON:
            self._deadlines.watch(self, self._loop.time() + left)
        else:
            self._stalled(self._transport)
