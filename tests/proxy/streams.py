"""Streams without sockets: both sides of a relayed answer, in the test's hand.

An endpoint's connection is the real one over a transport in memory, which waits in the pool as an
idle one does. Bytes are fed when the test says so, so every interleaving is exact.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from olla.clock import SystemClock
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.upstream.pool import Pool, UpstreamConnection

__all__ = ["SPEC", "Client", "Endpoint", "MemoryTransport", "idle_endpoint", "new_pool"]

SPEC = EndpointSpec("a", "127.0.0.1", 9, authority="127.0.0.1:9")
"""An endpoint at a port where nothing listens: a new connection is refused."""


class MemoryTransport(asyncio.Transport):
    """Remembers what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += bytes(data)

    def writelines(self, list_of_data: object) -> None:
        """Keep all of it."""
        for data in list_of_data:  # type: ignore[attr-defined]
            self.write(data)

    def abort(self) -> None:
        """Closed at once."""
        self.aborted = self.closed = True

    def close(self) -> None:
        """Closed."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it is."""
        return self.closed

    def pause_reading(self) -> None:
        """Read no more for now."""
        self.reading = False

    def resume_reading(self) -> None:
        """Read on."""
        self.reading = True

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Nothing is known."""
        return default


class Endpoint:
    """An endpoint's side of one connection."""

    def __init__(self, connection: UpstreamConnection, transport: MemoryTransport) -> None:
        self.connection = connection
        self.transport = transport

    def send(self, *pieces: bytes) -> None:
        """Send bytes, one read a piece."""
        for piece in pieces:
            self.connection.data_received(piece)

    def close(self, error: OSError | None = None) -> None:
        """Close the connection, or reset it."""
        self.transport.closed = True
        self.connection.connection_lost(error)


def new_pool() -> Pool:
    """A pool without connections."""
    return Pool(SystemClock(), connect_timeout=5.0, idle_timeout=5.0)


def idle_endpoint(pool: Pool, spec: EndpointSpec = SPEC) -> Endpoint:
    """An endpoint whose connection waits in the pool."""
    address = (spec.host, spec.port, spec.tls)
    connection = UpstreamConnection(pool, address, pool.loop)
    transport = MemoryTransport()
    connection.connection_made(transport)
    connection.expires = pool.loop.time() + 1000.0
    pool._idle.setdefault(address, deque()).append(connection)
    return Endpoint(connection, transport)


class Client:
    """A client's connection. See `relay.Downstream`."""

    def __init__(self, minor: int = 1) -> None:
        self.minor = minor
        self.persistent = True
        self.wants_trailers = False
        self.closing = False
        self.paused = False
        self.received = b""
        self.ended = False
        self.delimited = False
        self.catch_up: Callable[[], None] | None = None

    def write(self, data: bytes) -> None:
        """Receive it."""
        self.received += data

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Remember whom to tell."""
        self.catch_up = callback

    def close_delimited(self) -> None:
        """The answer ends with the connection."""
        self.delimited = True

    def complete(self) -> None:
        """It is whole."""
        self.delimited = False

    def answered(self) -> None:
        """Nothing follows."""
        self.ended = True
